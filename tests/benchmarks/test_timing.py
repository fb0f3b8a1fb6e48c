"""How long an operation of several processes took."""

from __future__ import annotations

import pytest

from benchmarks.timing import spans


def test_an_operation_lasts_from_the_last_start_to_the_last_end() -> None:
    one = [[0.0, 10.0], [4.0, 11.0]]
    late = [[3.0, 10.0], [5.0, 13.0]]
    assert spans([one, late]).values == (2.0, 3.0)
    assert spans([late, one]).values == (2.0, 3.0)
    assert spans([one]).values == (4.0, 1.0)


def test_ranks_have_equally_many_repetitions() -> None:
    with pytest.raises(ValueError):
        spans([[[0.0, 1.0], [1.0, 2.0]], [[0.0], [1.0]]])
