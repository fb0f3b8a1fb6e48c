"""Ranks that submit whatever they like: everything ends, nothing but the documented errors comes out, and then all works."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.collectives import Adasum, Average, Collectives, Max, Request, Result, Sum
from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.tasks import Future
from tests.collectives.cluster import Cluster

KINDS = ("allreduce", "allgather", "broadcast", "barrier", "alltoall", "reducescatter", "join")


def draw_request(stream: np.random.Generator, size: int) -> Request | None:
    """An operation that makes sense by itself, or None."""
    name, kind = f"x{stream.integers(3)}", KINDS[stream.choice(len(KINDS), p=[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])]
    more: dict[str, Any] = {"process_set": int(stream.integers(3)), "live_only": bool(stream.random() < 0.3)}
    array = None
    if kind not in ("barrier", "join"):
        array = np.ones((int(stream.integers(1, 3)) * size, 2), (np.float32, np.float64)[int(stream.random() < 0.2)])
    if kind == "allreduce":
        more["op"] = (Sum, Average, Max, Adasum)[stream.integers(4)]
    if kind == "alltoall":
        more |= {"live_only": False, "splits": tuple(map(int, stream.integers(-1, 3, int(stream.integers(size + 1)))))}
    if kind == "broadcast":
        more["root_rank"] = int(stream.integers(size))
    if kind != "join" and array is not None and stream.random() < 0.3:
        more |= {"group": f"g{stream.integers(2)}", "group_size": int(stream.integers(1, 3))}
    return Request(name, kind, array, **more)


@settings(max_examples=60)
@given(
    size=st.integers(1, 6),
    seed=st.integers(0, 100_000),
    eager_bytes=st.sampled_from([0, 1 << 20]),
    cache_capacity=st.sampled_from([0, 2, 1024]),
    leaver=st.none() | st.integers(0, 5),
)
def test_everything_ends(size: int, seed: int, eager_bytes: int, cache_capacity: int, leaver: int | None) -> None:
    cluster = Cluster(
        size, seed, eager_bytes=eager_bytes, cache_capacity=cache_capacity, stall_check_time=0.0,
        stall_shutdown_time=0.05, chunk_bytes=64,
    )  # fmt: skip

    async def main(rank: int, collectives: Collectives) -> None:
        endpoint, stream = cluster.endpoints[rank], np.random.default_rng((seed, rank))
        for ranks in (range(1, size), range(size - 1)):
            if len(ranks) and list(ranks) != [0]:
                await collectives.add_process_set(ranks)
        futures: list[Future[Result]] = []
        for _ in range(12):
            request = draw_request(stream, size)
            if request is not None:
                futures.append(collectives.submit(request))
            await endpoint.sleep(float(stream.exponential(2e-3)))
        if rank == leaver:
            await collectives.depart()
        for future in futures:
            try:
                await future
            except (HorovodInternalError, ValueError, NotImplementedError):
                continue

    cluster.run(main)

    async def after(rank: int, collectives: Collectives) -> float:
        if rank == leaver:
            return 1.0
        result = await collectives.submit(Request("after", "allreduce", np.ones(3), live_only=True))
        live = size - (leaver is not None and leaver < size)
        assert len(result.ranks) == live
        assert result.output is not None
        return float(result.output[0])

    assert cluster.run(after) == [1.0] * size
    cluster.leave()
