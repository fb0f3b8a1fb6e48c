"""Small arrays that are reduced as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives import Adasum, Average, Collectives, Request, Result, Sum
from hvd_gossip.collectives.packing import PACK_BYTES, Pack, PackedPending, Pair, Pending, reduce_together
from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.tasks import Future
from tests.collectives.cluster import BFLOAT16, Cluster, values

TYPES = (np.dtype(np.float32), np.dtype(np.int64), BFLOAT16)
LARGE = PACK_BYTES // 4 + 1
"""Elements of float32 that are not packed."""


class Submitted:
    """A simulated rank's request as a handle that is waited for by the simulation."""

    def __init__(self, future: Future[Result]) -> None:
        self.future = future

    def done(self) -> bool:
        return self.future.done()

    def wait(self) -> Result:
        return self.future.result()


class Ranks:
    """Reduces lists of arrays together on every rank of a cluster, and counts the requests of rank 0."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.cluster = Cluster(size, seed)
        self.requests: list[Request] = []

    def reduce(self, arrays: Sequence[Sequence[np.ndarray]], in_place: bool = True, **fields: Any) -> list[list[Any]]:
        """What every rank gets for each of its arrays, or its error."""

        async def main(rank: int, collectives: Collectives) -> list[Any]:
            futures: list[Future[Result]] = []

            def submit(request: Request) -> Pending:
                if rank == 0:
                    self.requests.append(request)
                futures.append(collectives.submit(request))
                return Submitted(futures[-1])

            pairs = [Pair(array, array if in_place else np.empty_like(array)) for array in arrays[rank]]
            pending = reduce_together(submit, "g", pairs, fields)
            assert len(pending) == len(pairs)
            for future in futures:
                try:
                    await future
                except HorovodInternalError as error:
                    return [error] * len(pairs)
            for one in pending:
                assert one.done()
                one.wait()
            return [pair.output for pair in pairs]

        return self.cluster.run(main)


@given(
    size=st.integers(1, 5),
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    in_place=st.booleans(),
)
def test_a_group_of_small_arrays_gives_what_each_alone_would(
    size: int, shapes: list[tuple[int, ...]], seed: int, in_place: bool
) -> None:
    dtypes = [TYPES[(seed + number) % len(TYPES)] for number in range(len(shapes))]
    forms = list(zip(dtypes, shapes, range(len(shapes)), strict=True))
    given_arrays = [
        [values(dtype, shape, seed + 17 * rank + number) for dtype, shape, number in forms] for rank in range(size)
    ]
    ranks = Ranks(size, seed)
    wanted = [sum(arrays[number].astype(np.float64) for arrays in given_arrays) for number in range(len(shapes))]
    for outputs in ranks.reduce(given_arrays, in_place, op=Sum):
        for output, total, (dtype, shape, _) in zip(outputs, wanted, forms, strict=True):
            assert (output.shape, output.dtype) == (shape, dtype)
            np.testing.assert_allclose(output.astype(np.float64), total, rtol=2e-2)
    assert len(ranks.requests) == len(set(dtypes))
    ranks.cluster.leave()


def test_large_ones_travel_by_themselves_and_sources_stay_as_they_are() -> None:
    arrays = [[np.full(n, rank + 1.0, np.float32) for n in (3, LARGE, 5, LARGE)] for rank in range(2)]
    ranks = Ranks(2)
    for outputs in ranks.reduce(arrays, in_place=False, op=Average):
        assert all((output == 1.5).all() for output in outputs)
    assert sorted(request.array.size for request in ranks.requests) == [8, LARGE, LARGE]
    assert {request.group_size for request in ranks.requests} == {3}
    assert (arrays[1][0] == 2.0).all()


def test_adasum_combines_every_array_by_itself() -> None:
    arrays = [[np.array([1.0, 0.0]), np.array([1.0, 1.0])], [np.array([0.0, 1.0]), np.array([1.0, 1.0])]]
    ranks = Ranks(2)
    for orthogonal, parallel in ranks.reduce(arrays, op=Adasum):
        np.testing.assert_allclose(orthogonal, [1.0, 1.0])  # added
        np.testing.assert_allclose(parallel, [1.0, 1.0])  # averaged
    assert len(ranks.requests) == 2


@pytest.mark.parametrize(
    "shapes",
    [
        [[(2, 3), (4,)], [(3, 2), (4,)]],  # alike in length
        [[(6,), (4,)], [(5,), (4,)]],
        [[(6,), (4,)], [(6,), (LARGE,)]],  # one rank packs, the other does not
        [[(6,), (4,), (4,)], [(6,), (4,)]],
    ],
    ids=["shape", "length", "packing", "number"],
)
def test_ranks_whose_groups_differ_all_fail_and_the_next_group_works(shapes: list[list[tuple[int, ...]]]) -> None:
    ranks = Ranks(2)
    for outputs in ranks.reduce([[np.ones(shape, np.float32) for shape in own] for own in shapes], op=Sum):
        assert isinstance(outputs[0], HorovodInternalError)
        assert "Mismatched" in str(outputs[0])
    for outputs in ranks.reduce([[np.ones(2), np.ones(3)]] * 2, op=Sum):
        assert [output.tolist() for output in outputs] == [[2.0] * 2, [2.0] * 3]
    ranks.cluster.leave()


class Done:
    """A request that has been carried out."""

    def done(self) -> bool:
        return True

    def wait(self) -> Result:
        return Result(None, (), (0,))


def test_a_pack_is_unpacked_once() -> None:
    outputs = [np.zeros(2), np.zeros((1, 3))]
    pack = Pack([Pair(np.arange(2.0), outputs[0]), Pair(np.arange(3.0).reshape(1, 3), outputs[1])])
    assert pack.array.tolist() == [0, 1, 0, 1, 2]
    pending = PackedPending(Done(), pack, nullcontext)
    assert pending.wait().ranks == (0,)
    outputs[0][:] = 7
    assert pending.wait().ranks == (0,)
    assert outputs[0].tolist() == [7, 7]
    assert outputs[1].tolist() == [[0, 1, 2]]


def test_an_error_of_a_pack_says_whose_shapes_it_has() -> None:
    """The ranks' answer knows the pack alone: "shape [5]" of tensors of 2 and of 3 elements would puzzle their owner."""

    class Failing:
        def done(self) -> bool:
            return True

        def wait(self) -> Result:
            raise HorovodInternalError("Mismatched allreduce tensor shapes for 'g_1'.")

    for count, more in ((2, ""), (10, " and 2 more")):
        arrays = [np.ones((2 + index, 3)) for index in range(count)]
        pending = PackedPending(Failing(), Pack([Pair(array, array) for array in arrays]), nullcontext)
        for _ in range(2):  # every member asks
            with pytest.raises(HorovodInternalError) as caught:
                pending.wait()
            text = str(caught.value)
            assert text.startswith("Mismatched allreduce tensor shapes for 'g_1'. ")
            assert "[2, 3], [3, 3]" in text
            assert text.endswith(f"{more}.")
            assert text.count("of shapes") == 1
