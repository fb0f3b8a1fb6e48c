"""What the ranks submit under one name differs: an error on all of them that says how, and the next operation works."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_gossip.collectives import Collectives, Max, Request, Sum
from hvd_gossip.errors import HorovodInternalError
from tests.collectives.cluster import Cluster

F32 = np.ones(4, np.float32)

CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "operations",
        {"kind": "allreduce", "array": F32},
        {"kind": "allgather", "array": F32},
        "Mismatched operations for 'x': ranks 0-1 submitted allreduce, but rank 2 submitted allgather.",
    ),
    (
        "barrier",
        {"kind": "barrier"},
        {"kind": "broadcast", "array": F32},
        "Mismatched operations for 'x': ranks 0-1 submitted barrier, but rank 2 submitted broadcast.",
    ),
    (
        "dtype",
        {"kind": "allreduce", "array": F32},
        {"kind": "allreduce", "array": F32.astype(np.int64)},
        "Mismatched data types for 'x': ranks 0-1 submitted float32, but rank 2 submitted int64.",
    ),
    (
        "shape",
        {"kind": "allreduce", "array": F32},
        {"kind": "allreduce", "array": np.ones(5, np.float32)},
        "Mismatched allreduce tensor shapes for 'x': ranks 0-1 submitted shape [4], but rank 2 submitted shape [5].",
    ),
    (
        "number of dimensions",
        {"kind": "broadcast", "array": F32},
        {"kind": "broadcast", "array": np.ones((4, 1), np.float32)},
        "Mismatched broadcast tensor ranks for 'x': ranks 0-1 submitted 1 dimensions, but rank 2 submitted 2 dimensions.",
    ),
    (
        "later dimensions of allgather",
        {"kind": "allgather", "array": np.ones((1, 3))},
        {"kind": "allgather", "array": np.ones((2, 4))},
        "Mismatched allgather tensor shapes for 'x': ranks 0-1 submitted shape [*, 3], but rank 2 submitted shape [*, 4].",
    ),
    (
        "later dimensions of alltoall",
        {"kind": "alltoall", "array": np.ones((3, 3))},
        {"kind": "alltoall", "array": np.ones((6, 4))},
        "Mismatched alltoall tensor shapes for 'x': ranks 0-1 submitted shape [*, 3], but rank 2 submitted shape [*, 4].",
    ),
    (
        "rows of reducescatter",
        {"kind": "reducescatter", "array": F32},
        {"kind": "reducescatter", "array": np.ones(5, np.float32)},
        "Mismatched reducescatter tensor shapes for 'x': ranks 0-1 submitted shape [4], but rank 2 submitted shape [5].",
    ),
    (
        "op of reducescatter",
        {"kind": "reducescatter", "array": F32, "op": Sum},
        {"kind": "reducescatter", "array": F32},
        "Mismatched reduction operations for 'x': ranks 0-1 submitted Sum, but rank 2 submitted Average.",
    ),
    (
        "dtype of alltoall",
        {"kind": "alltoall", "array": np.ones(3, np.float32)},
        {"kind": "alltoall", "array": np.ones(3, np.float64)},
        "Mismatched data types for 'x': ranks 0-1 submitted float32, but rank 2 submitted float64.",
    ),
    (
        "op",
        {"kind": "allreduce", "array": F32, "op": Sum},
        {"kind": "allreduce", "array": F32, "op": Max},
        "Mismatched reduction operations for 'x': ranks 0-1 submitted Sum, but rank 2 submitted Max.",
    ),
    (
        "scales",
        {"kind": "allreduce", "array": F32, "prescale": 0.5},
        {"kind": "allreduce", "array": F32, "postscale": 2.0},
        "Mismatched prescale and/or postscale factors for 'x': ranks 0-1 submitted factors (0.5, 1), "
        "but rank 2 submitted factors (1, 2).",
    ),
    (
        "root",
        {"kind": "broadcast", "array": F32, "root_rank": 1},
        {"kind": "broadcast", "array": F32, "root_rank": 2},
        "Mismatched broadcast root ranks for 'x': ranks 0-1 submitted root rank 1, but rank 2 submitted root rank 2.",
    ),
    (
        "live_only",
        {"kind": "allreduce", "array": F32},
        {"kind": "allreduce", "array": F32, "live_only": True},
        "Mismatched live_only arguments for 'x': ranks 0-1 submitted live_only=False, but rank 2 submitted live_only=True.",
    ),
    (
        "group",
        {"kind": "allreduce", "array": F32, "group": "g", "group_size": 1},
        {"kind": "allreduce", "array": F32},
        "Mismatched groups for 'x': ranks 0-1 submitted group 'g' of 1, but rank 2 submitted group '' of 0.",
    ),
]


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "cached"])
@pytest.mark.parametrize("eager_bytes", [0, 128 << 10], ids=["large", "small"])
@pytest.mark.parametrize(("usual", "odd", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_every_kind_of_mismatch(
    usual: dict[str, Any], odd: dict[str, Any], text: str, eager_bytes: int, warm: bool
) -> None:
    cluster = Cluster(3, seed=4, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> tuple[str, Any]:
        if warm:
            await collectives.submit(Request("x", **usual))
        with pytest.raises(HorovodInternalError) as raised:
            await collectives.submit(Request("x", **(odd if rank == 2 else usual)))
        good = await collectives.submit(Request("x", "allreduce", np.full(3, rank), Sum))
        return str(raised.value), good.output.tolist()

    assert cluster.run(main) == [(text, [3, 3, 3])] * 3
    cluster.leave()


def test_all_different() -> None:
    cluster = Cluster(3)

    async def main(rank: int, collectives: Collectives) -> None:
        await collectives.submit(Request("x", "allreduce", np.ones(rank + 1)))

    with pytest.raises(HorovodInternalError, match=r"rank 0 .* \[1\], rank 1 .* \[2\], but rank 2 .* \[3\]"):
        cluster.run(main)


@pytest.mark.parametrize("eager_bytes", [0, 128 << 10])
def test_a_mismatch_fails_its_whole_group_and_nothing_else(eager_bytes: int) -> None:
    cluster = Cluster(2, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> list[str]:
        def part(name: str, length: int) -> Request:
            return Request(name, "allreduce", np.ones(length), group="g", group_size=2)

        futures = [collectives.submit(part("a", 3)), collectives.submit(part("b", 3 + rank))]
        other = collectives.submit(Request("other", "allreduce", np.ones(3), Sum))
        errors = []
        for future in futures:
            with pytest.raises(HorovodInternalError) as raised:
                await future
            errors.append(str(raised.value))
        assert (await other).output[0] == 2
        return errors

    text = "Mismatched allreduce tensor shapes for 'b': rank 0 submitted shape [3], but rank 1 submitted shape [4]."
    assert cluster.run(main) == [[text, text]] * 2
    cluster.leave()


@pytest.mark.parametrize("eager_bytes", [0, 128 << 10])
def test_a_group_is_answered_as_a_whole(eager_bytes: int) -> None:
    """The first member's result comes only with the last member's submission, in whatever order."""
    cluster = Cluster(2, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> tuple[bool, list[float]]:
        names = ["a", "b"] if rank == 0 else ["b", "a"]
        requests = {
            name: Request(name, "allreduce", np.full(3, rank, dtype), Sum, group="g", group_size=2)
            for name, dtype in (("a", np.float32), ("b", np.int64))
        }
        first = collectives.submit(requests[names[0]])
        await cluster.endpoints[rank].sleep(0.1)
        waits = not first.done()
        second = collectives.submit(requests[names[1]])
        return waits, [float((await future).output[0]) for future in (first, second)]

    assert cluster.run(main) == [(True, [1.0, 1.0])] * 2
    cluster.leave()
