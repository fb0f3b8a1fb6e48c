"""Texts of errors and warnings."""

from __future__ import annotations

import pytest

from hvd_gossip.collectives.messages import describe_mismatch, describe_stall, name_ranks
from hvd_gossip.collectives.request import Signature


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([], "no rank"),
        ([3], "rank 3"),
        ([1, 0], "ranks 0-1"),
        ([0, 2], "ranks 0, 2"),
        ({5, 6, 7, 9, 1, 0}, "ranks 0-1, 5-7, 9"),
        (range(1024), "ranks 0-1023"),
    ],
)
def test_ranks(ranks: list[int], text: str) -> None:
    assert name_ranks(ranks) == text


def test_equal_signatures_do_not_mismatch() -> None:
    assert describe_mismatch({rank: Signature("x", "barrier") for rank in range(3)}) == ""


def test_devices() -> None:
    signatures = {0: Signature("x", "allreduce"), 1: Signature("x", "allreduce", device="GPU")}
    assert describe_mismatch(signatures) == (
        "Mismatched allreduce CPU/GPU device selection for 'x': rank 0 submitted device CPU, "
        "but rank 1 submitted device GPU."
    )


def test_the_first_difference_is_told() -> None:
    """A different kind explains everything else."""
    signatures = {0: Signature("x", "allreduce", "float32", (3,)), 1: Signature("x", "broadcast", "int8", (4, 4))}
    assert describe_mismatch(signatures).startswith("Mismatched operations for 'x'")


def test_stall() -> None:
    text = describe_stall([(Signature("x", "allgather"), 61.4, [0, 1], [2])], 60.0)
    head, line = text.splitlines()
    assert "more than 60 seconds" in head
    assert line == "  allgather 'x': 61 s [ready ranks: 0-1] [missing ranks: 2]"
