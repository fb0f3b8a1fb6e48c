"""Divisions of rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives.rows import bounds_of, even_rows, full_splits, starts_of, wrong_splits


@given(st.integers(0, 1000), st.integers(1, 50))
def test_even_rows(rows: int, count: int) -> None:
    shares = even_rows(rows, count)
    assert len(shares) == count
    assert sum(shares) == rows
    assert max(shares) - min(shares) <= 1
    assert list(shares) == sorted(shares, reverse=True)
    assert shares.count(max(shares)) == (rows % count or count)


def test_bounds() -> None:
    assert [bounds_of((2, 0, 3), index) for index in range(3)] == [(0, 2), (2, 2), (2, 5)]
    assert starts_of((2, 0, 3)) == [0, 2, 2, 5]


def test_splits() -> None:
    assert full_splits((), 6, 3) == (2, 2, 2)
    assert full_splits((1, 2, 3), 9, 3) == (1, 2, 3)
    assert wrong_splits((), 6, 3) == wrong_splits((1, 2, 3), 6, 3) == wrong_splits((0, 0, 1), 6, 3) == ""


@pytest.mark.parametrize(
    ("splits", "text"), [((), "even multiple"), ((1,), "1 for 2"), ((-1, 2), "negative"), ((5, 5), "greater")]
)
def test_wrong_splits(splits: tuple[int, ...], text: str) -> None:
    assert text in wrong_splits(splits, 7, 2)
