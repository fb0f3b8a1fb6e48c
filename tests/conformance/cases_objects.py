"""Horovod, API, broadcast_object, allgather_object, the broadcast of variables, and Compression."""

from __future__ import annotations

import numpy as np

from tests.conformance.case import Cases, everybodys, numbers, ours, same
from tests.conformance.framework import Framework

CASES = Cases()


class Named:
    """An object of a class of ours."""

    def __init__(self, name: str) -> None:
        self.name = name


@CASES.add()
def broadcast_object_returns_the_roots_object(f: Framework) -> None:
    """API, broadcast_object: serializes and broadcasts an object from root rank to all others; rank 0 by default."""
    rank = f.hvd.rank()
    mine = {"rank": rank, "list": [rank] * (10 * rank), "array": np.arange(rank)}
    for root in range(f.hvd.size()):
        theirs = f.hvd.broadcast_object(mine, root_rank=root)
        assert theirs["rank"] == root
        assert theirs["list"] == [root] * (10 * root)
        assert theirs["array"].tolist() == list(range(root))
    assert f.hvd.broadcast_object(rank) == 0


@CASES.add()
def broadcast_object_takes_a_name(f: Framework) -> None:
    """API, broadcast_object, name: optional name to use during broadcast."""
    assert f.hvd.broadcast_object(f.hvd.rank(), 0, name="an object") == 0


@CASES.add()
def objects_that_only_the_root_has(f: Framework) -> None:
    """API, broadcast_object: the others' object does not matter."""
    assert f.hvd.broadcast_object("checkpoint" if f.hvd.rank() == 0 else None, 0) == "checkpoint"


@CASES.add()
def objects_of_own_classes_and_functions_are_broadcast(f: Framework) -> None:
    """API, broadcast_object: an object capable of being serialized without losing any context."""
    rank = f.hvd.rank()
    assert f.hvd.broadcast_object(Named(f"of {rank}")).name == "of 0"
    assert f.hvd.broadcast_object(lambda x: x + rank)(1) == 1


@CASES.add()
def allgather_object_returns_all_in_the_order_of_ranks(f: Framework) -> None:
    """API, allgather_object: the list of objects that were allgathered across all ranks."""
    gathered = f.hvd.allgather_object(["x"] * f.hvd.rank())
    assert gathered == [["x"] * rank for rank in range(f.hvd.size())]


@CASES.add()
def large_objects_are_broadcast(f: Framework) -> None:
    """API, broadcast_object: of any size."""
    text = f.hvd.broadcast_object(str(f.hvd.rank()) * 3_000_000)
    assert (len(text), set(text)) == (3_000_000, {"0"})


@CASES.add()
def variables_are_overwritten_by_the_roots(f: Framework) -> None:
    """API, broadcast_parameters, broadcast_variables: from root rank to all other processes."""
    for root in range(f.hvd.size()):
        shapes = ((3, 2), (4,), ())
        variables = f.variables([numbers(f.hvd.rank(), *shape) for shape in shapes])
        f.broadcast_variables(variables, root)
        for variable, shape in zip(variables, shapes, strict=True):
            same(f, variable, numbers(root, *shape))


@CASES.add()
def compression_none_leaves_tensors_as_they_are(f: Framework) -> None:
    """API, Compression.none: default, no compression."""
    compressed, context = f.hvd.Compression.none.compress(ours(f, 4))
    same(f, compressed, numbers(f.hvd.rank(), 4))
    same(f, f.hvd.Compression.none.decompress(compressed, context), numbers(f.hvd.rank(), 4))


@CASES.add()
def compression_fp16_makes_floats_half_as_long_and_restores_their_type(f: Framework) -> None:
    """API, Compression.fp16: compresses all floating point gradients to 16 bits."""
    for dtype in ("float32", "float64"):
        compressed, context = f.hvd.Compression.fp16.compress(ours(f, 4, dtype=dtype))
        same(f, compressed, numbers(f.hvd.rank(), 4), "float16")
        same(f, f.hvd.Compression.fp16.decompress(compressed, context), numbers(f.hvd.rank(), 4), dtype)


@CASES.add()
def compression_fp16_leaves_integers_as_they_are(f: Framework) -> None:
    """API, Compression.fp16: floating point gradients only."""
    compressed, context = f.hvd.Compression.fp16.compress(ours(f, 4, dtype="int64"))
    same(f, compressed, numbers(f.hvd.rank(), 4), "int64")
    same(f, f.hvd.Compression.fp16.decompress(compressed, context), numbers(f.hvd.rank(), 4), "int64")
    same(f, f.hvd.allreduce(ours(f, 4)), everybodys(f, 4).mean(0))
