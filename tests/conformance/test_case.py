"""What cases are written with finds out what is wrong; the list of cases is complete and documented."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from tests.conformance import lists
from tests.conformance.case import Case, Cases, close, parts, raises
from tests.conformance.cases_adasum import adasum
from tests.conformance.cases_sync_batch_norm import batch_norm


def test_each_case_says_what_is_documented_in_one_line() -> None:
    cases = lists.cases_of("torch")
    assert len(cases) > 200
    for case in cases:
        text = inspect.getdoc(case.body)
        assert text, case.name
        assert text.endswith("."), case.name


def test_every_file_of_cases_is_on_a_list() -> None:
    found = {path.stem for path in Path(__file__).parent.glob("*cases_*.py")}
    assert found == {*lists.COMMON, *lists.LAST, *(file for files in lists.OWN.values() for file in files)}


def test_a_name_used_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "COMMON", ("cases_world", "cases_world"))
    with pytest.raises(ValueError, match="rank_is_unique"):
        lists.cases_of("torch")


def test_a_case_runs_with_the_numbers_of_ranks_that_it_is_about() -> None:
    assert [n for n in range(1, 6) if Case(print, ranks=2).runs_with(n)] == [2, 3, 4, 5]
    assert [n for n in range(1, 6) if Case(print, powers_of_two=True).runs_with(n)] == [1, 2, 4]
    assert [n for n in range(1, 6) if Case(print, powers_of_two=False).runs_with(n)] == [3, 5]
    assert not Case(print, averages=True).runs_with(2, "adpsgd")
    assert Case(print, averages=True).runs_with(2, "allreduce")


def test_cases_keep_their_order() -> None:
    cases = Cases()
    for body in (len, abs):
        assert cases.add()(body) is body
    assert [case.name for case in cases] == ["len", "abs"]


def _fail(error: Exception) -> None:
    raise error


def test_raises_wants_the_exception_and_the_words_and_no_time_out() -> None:
    with raises(ValueError, about=["Words"]):
        _fail(ValueError("some words"))
    with pytest.raises(AssertionError, match="words"), raises(ValueError, about=["words"]):
        _fail(ValueError("others"))
    with pytest.raises(AssertionError, match="time was up"), raises(HorovodInternalError):
        _fail(WaitTimeoutError("nobody came"))
    with pytest.raises(BaseException, match="DID NOT RAISE"), raises(ValueError):
        pass


def test_close_compares_shapes_too() -> None:
    with pytest.raises(AssertionError, match="shape"):
        close(np.ones(3), np.ones((1, 3)))
    with pytest.raises(AssertionError, match="Not equal"):
        close(np.ones(3), np.full(3, 1.1))


def test_parts_are_all_rows_the_first_longer() -> None:
    assert [part.stop - part.start for part in parts(11, 4)] == [3, 3, 3, 2]
    assert [part.start for part in parts(11, 4)] == [0, 3, 6, 9]


def test_adasum_of_two_is_half_way_between_sum_and_average() -> None:
    """Two unit vectors at 60 degrees: from each, half of its projection on the other goes: 3/4 of each is left."""
    one, other = np.array([1.0, 0.0]), np.array([0.5, np.sqrt(0.75)])
    np.testing.assert_allclose(adasum([one, other]), 0.75 * (one + other))


def test_batch_norm_normalizes_and_its_gradient_is_the_difference_quotient() -> None:
    random = np.random.default_rng(0)
    x, upstream = random.standard_normal((4, 2, 3)), random.standard_normal((4, 2, 3))
    result = batch_norm(x, upstream)
    np.testing.assert_allclose(result.output.mean((0, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(result.output.std((0, 2)), 1, rtol=1e-4)
    step = np.zeros_like(x)
    step[1, 0, 2] = 1e-5
    ahead, behind = (batch_norm(x + sign * step, upstream).output for sign in (1, -1))
    quotient = ((ahead - behind) * upstream).sum() / 2e-5
    np.testing.assert_allclose(result.input_gradient[1, 0, 2], quotient, rtol=1e-5)
