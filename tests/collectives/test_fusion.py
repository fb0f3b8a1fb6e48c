"""Which operations are executed as one transfer, and that they give what they give alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives import Collectives, Request, Sum
from hvd_gossip.collectives.executor import Operation
from hvd_gossip.collectives.fusion import fuse
from hvd_gossip.collectives.request import Signature
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import Cluster


def reduce(name: str, length: int = 10, **more: Any) -> Signature:
    return Signature(name, "allreduce", **{"dtype": "float32", "shape": (length,), **more})


def names(groups: list[list[Signature]]) -> list[list[str]]:
    return [[signature.name for signature in group] for group in groups]


def test_up_to_the_threshold() -> None:
    assert names(fuse([reduce(name) for name in "abcde"], 80)) == [["a", "b"], ["c", "d"], ["e"]]
    assert names(fuse([reduce("a"), reduce("big", 1000), reduce("c")], 80)) == [["a"], ["big"], ["c"]]
    assert names(fuse([reduce("a"), reduce("b")], 0)) == [["a"], ["b"]]


def test_only_what_the_same_ranks_take_part_in() -> None:
    absent = {(0, "b"): (2,), (0, "d"): (2,), (0, "e"): (1, 2)}
    assert names(fuse([reduce(name) for name in "abcde"], 1 << 20, absent)) == [["a", "c"], ["b", "d"], ["e"]]


def test_two_types_in_turn_make_two_transfers() -> None:
    mixed = [reduce(str(i), dtype=("float32", "float16")[i % 2]) for i in range(6)]
    assert names(fuse(mixed, 1 << 20)) == [["0", "2", "4"], ["1", "3", "5"]]


@pytest.mark.parametrize(
    "odd", [{"dtype": "float64"}, {"op": 1}, {"prescale": 2.0}, {"postscale": 2.0}, {"live_only": True},
            {"process_set": 1}, {"device": "GPU"}]
)  # fmt: skip
def test_incompatible(odd: dict[str, Any]) -> None:
    assert len(fuse([reduce("a"), reduce("b", **odd)], 1 << 20)) == 2


def test_other_kinds_are_not_fused() -> None:
    assert len(fuse([Signature(name, "allgather", shape=(1,)) for name in "ab"], 1 << 20)) == 2


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["float32", "int8"])), max_size=12), st.integers(0, 200))
def test_nothing_is_lost_and_no_group_is_too_large(tensors: list[tuple[int, str]], threshold: int) -> None:
    signatures = [reduce(str(i), length, dtype=dtype) for i, (length, dtype) in enumerate(tensors)]
    groups = fuse(signatures, threshold)
    assert sorted(one.name for group in groups for one in group) == sorted(one.name for one in signatures)
    for group in groups:
        assert len(group) == 1 or sum(one.nbytes for one in group) <= threshold
        assert len({one.dtype for one in group}) == 1
    firsts = [int(group[0].name) for group in groups]
    assert firsts == sorted(firsts)


def test_fused_transfers_carry_each_tensors_own_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty tensors of two types submitted together: two transfers. (horovod#1514: fusion did not make allreduces fewer.)"""
    sizes: list[int] = []
    channel = vars(Operation)["channel"]
    monkeypatch.setattr(
        Operation, "channel", property(lambda self: (sizes.append(len(self.parts)), channel.fget(self))[1])
    )
    cluster = Cluster(3, world=SimulatedWorld(3), eager_bytes=0)

    async def main(rank: int, collectives: Collectives) -> None:
        arrays = [np.full(i * 7 + 1, rank + i, (np.float32, np.float64)[i % 2]) for i in range(30)]
        results = await all_of(
            collectives.submit(Request(f"t{i}", "allreduce", array, Sum, output=array if i % 3 else None))
            for i, array in enumerate(arrays)
        )
        for i, result in enumerate(results):
            assert (result.output == 3 + 3 * i).all()
            assert result.output.shape == (7 * i + 1,)
            assert (arrays[i] == (3 + 3 * i if i % 3 else rank + i)).all()

    cluster.run(main)
    assert sizes == [15] * 6
    cluster.leave()
