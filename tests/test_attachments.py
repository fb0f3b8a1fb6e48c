"""What ranks put under an algorithm, in process sets that share ranks, and where its messages travel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_gossip.attachments import CAPACITY, Attachments
from hvd_gossip.collectives import Request, Result
from hvd_gossip.errors import ConfigError
from hvd_gossip.transport.endpoint import ALGORITHM_BASE, ALGORITHM_LIMIT, ALGORITHM_STRIDE
from tests.mpi import run_ranks
from tests.test_joining import GOSSIP, PREAMBLE


class Answered:
    """A handle that is done."""

    def __init__(self, output: Any) -> None:
        self._output = output

    def wait(self) -> Result:
        return Result(self._output, (1,), (0,))


class Group:
    """Ranks whose attachments are driven in step: each `agree` sees what all of its process set say."""

    def __init__(self, size: int) -> None:
        self.said: dict[str, list[Any]] = {}
        self.ranks = [Attachments(self.submit) for _ in range(size)]

    def submit(self, request: Request) -> Any:
        """Two passes: the first only collects, by raising."""
        key = f"{request.process_set}.{request.name}"
        everybody = self.said.setdefault(key, [])
        if self.collecting:
            everybody.append(request.array)
            raise LookupError
        return Answered(np.concatenate(everybody))

    def attach(self, members: list[int], process_set: int, whats: list[str] | None = None) -> list[int]:
        whats = whats or ["the same"] * len(members)
        self.collecting = True
        for rank, what in zip(members, whats, strict=True):
            with pytest.raises(LookupError):
                self.ranks[rank].agree(what, members, rank, process_set)
        self.collecting = False
        return [
            self.ranks[rank].agree(what, members, rank, process_set) for rank, what in zip(members, whats, strict=True)
        ]


def test_no_rank_uses_a_channel_twice_and_the_ranks_of_a_set_use_the_same() -> None:
    group, used = Group(4), {rank: set() for rank in range(4)}
    sets = [[0, 1, 2, 3], [0, 1], [2, 3], [1, 2], [0, 1], [3], [0, 1, 2, 3], [2, 3]]
    for members in sets:
        channels = group.attach(members, process_set=hash(tuple(members)) % 1000)
        assert len(set(channels)) == 1
        assert (channels[0] - ALGORITHM_BASE) % ALGORITHM_STRIDE == 0
        for rank in members:
            assert channels[0] not in used[rank]
            used[rank].add(channels[0])


def test_different_things_are_an_error_that_names_the_ranks() -> None:
    other = np.array([[1, 0]], np.int64)
    one = Attachments(lambda request: Answered(np.vstack([request.array, request.array, other])))  # type: ignore[arg-type, return-value, list-item]
    with pytest.raises(ConfigError, match=r"rank 0 attached this, but rank\(s\) 4 something else"):
        one.agree("this", [0, 2, 4], 0, process_set=3)


def test_channels_end() -> None:
    one = Attachments(lambda request: Answered(request.array))  # type: ignore[arg-type, return-value]
    for _ in range(CAPACITY):
        last = one.agree("this", [0], 0, 0)
    assert last + ALGORITHM_STRIDE <= ALGORITHM_LIMIT
    with pytest.raises(ConfigError, match="no channels are left"):
        one.agree("this", [0], 0, 0)


@pytest.mark.parametrize("algorithm", GOSSIP)
def test_gossip_in_process_sets_that_share_ranks(algorithm: str) -> None:
    """Each set comes to its own mean; an exact mean, and a consensus distance, are those of the set."""
    script = (
        PREAMBLE
        + f"""
from hvd_gossip import basics
basics.init(process_sets="dynamic", algorithm={algorithm!r}, wait_timeout=30)
rt = runtime.current()
rank = rt.world.rank
sets = [[0, 1], [1, 2, 3], [0, 3], [2]]
members = [basics.add_process_set(one) for one in sets]
mine = [one for one in members if one.included()]
xs = [np.full(1000, float(rank + 10 * one.process_set_id)) for one in mine]
workers = [rt.attach([x], process_set=one.process_set_id, chunk_bytes=4096) for x, one in zip(xs, mine)]
everybody = rt.attach([np.zeros(10)])
for round_ in range(100 if rt.config.algorithm == "adpsgd" else 1):  # whose steps wait for no exchange
    for step in range(40):
        time.sleep(0.001)
        for worker in [*workers, everybody]:
            worker.step(lambda: None)
    rt.join()
    apart = np.array([float(any(worker.consensus_distance() >= 5.0 for worker in workers))])
    if total(rt, apart, f"apart{{round_}}")[0] == 0:
        break
said = {{}}
for x, one, worker in zip(xs, mine, workers):
    with worker.consensus():
        mean = float(x[0])
    said[one.process_set_id] = [mean, worker.consensus_distance(), one.ranks, worker.algorithm.context.channel]
report(said)
runtime.shutdown()
"""
    )
    results = run_ranks(4, script).in_rank_order()
    channels = []
    for rank, said in enumerate(results):
        channels.append([channel for *_, channel in said.values()])
        for number, (mean, distance, ranks, channel) in said.items():
            assert rank in ranks
            assert mean == pytest.approx(np.mean(ranks) + 10 * int(number), abs=1e-9)
            assert distance < 5.0
            assert all(results[other][number][3] == channel for other in ranks)
    assert all(len(set(own)) == len(own) for own in channels)


def test_a_rank_outside_of_the_set_is_refused_before_anything_is_sent() -> None:
    script = (
        PREAMBLE
        + """
from hvd_gossip import basics
basics.init(process_sets="dynamic", algorithm="sgp")
rt = runtime.current()
one = basics.add_process_set([1])
try:
    rt.attach([np.zeros(3)], process_set=one.process_set_id)
    said = "attached"
except ValueError as error:
    said = str(error)
try:
    rt.attach([np.zeros(3)], process_set=77)
except ValueError as error:
    unknown = str(error)
report([said, unknown])
runtime.shutdown()
"""
    )
    results = run_ranks(2, script).in_rank_order()
    assert "rank 0 is not in process set" in results[0][0]
    assert results[1][0] == "attached"
    assert all("no process set 77" in unknown for _, unknown in results)
