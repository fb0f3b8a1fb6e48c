"""What a request refuses before anything is sent, and what it asks the other ranks to agree on."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from hvd_gossip.collectives import Average, Product, ReduceOp, Request, Sum
from hvd_gossip.collectives.request import MAX_NAME, dtype_of, is_floating, is_number

F32 = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "", "kind": "barrier"}, "needs a name"),
        ({"name": "n" * (MAX_NAME + 1), "kind": "barrier"}, f"1 to {MAX_NAME} bytes"),
        ({"name": "x", "kind": "reduce"}, "unknown kind of operation 'reduce'; there are allreduce, allgather"),
        ({"name": "x", "kind": "allreduce"}, "allreduce 'x': an array is needed, not None"),
        ({"name": "x", "kind": "allreduce", "array": np.float32(1)}, "an array is needed"),
        ({"name": "x", "kind": "barrier", "array": F32}, "a barrier takes no array"),
        ({"name": "x", "kind": "allreduce", "array": F32.T}, "C-contiguous"),
        ({"name": "x", "kind": "broadcast", "array": np.array(["a"])}, "cannot be sent"),
        ({"name": "x", "kind": "broadcast", "array": np.array([None])}, "cannot be sent"),
        ({"name": "x", "kind": "broadcast", "array": np.ones(2, ">f4")}, "cannot be sent"),
        ({"name": "x", "kind": "broadcast", "array": np.ones(2, "f4,i4")}, "cannot be sent"),
        (
            {"name": "x", "kind": "allreduce", "array": F32, "dtype_name": "float64"},
            "float64 cannot be sent from an array",
        ),
        ({"name": "x", "kind": "allreduce", "array": F32, "dtype_name": "float31"}, "unknown element type 'float31'"),
        ({"name": "x", "kind": "allreduce", "array": np.array([1], "M8[s]")}, r"datetime64\[s\] cannot be reduced"),
        ({"name": "x", "kind": "allreduce", "array": np.ones(2, bool), "op": Average}, "neither averaged nor scaled"),
        (
            {"name": "x", "kind": "allreduce", "array": np.ones(2, bool), "op": Sum, "postscale": 2.0},
            "neither averaged",
        ),
        ({"name": "x", "kind": "allreduce", "array": F32, "op": 9}, "9 is not a valid ReduceOp"),
        ({"name": "x", "kind": "allgather", "array": np.array(1.0)}, "rank-zero tensor"),
        ({"name": "x", "kind": "allgather", "array": F32, "output": F32}, "output must be None"),
        (
            {"name": "x", "kind": "allreduce", "array": F32, "output": np.ones((3, 2), np.float32)},
            "output must be a ndarray",
        ),
        ({"name": "x", "kind": "allreduce", "array": F32, "output": np.ones((2, 3))}, "not float64"),
        (
            {"name": "x", "kind": "allreduce", "array": F32, "output": np.ones((2, 6), "f4")[:, ::2]},
            "C-contiguous and write",
        ),
        ({"name": "x", "kind": "allreduce", "array": F32, "group": "g"}, "group and group_size come together"),
        ({"name": "x", "kind": "allreduce", "array": F32, "group_size": 2}, "group and group_size come together"),
    ],
)
def test_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request(**arguments)  # type: ignore[arg-type]


def test_reduction_numbers_are_horovods() -> None:
    assert {op.name: int(op) for op in ReduceOp} == {
        "AVERAGE": 0,
        "SUM": 1,
        "ADASUM": 2,
        "MIN": 3,
        "MAX": 4,
        "PRODUCT": 5,
    }
    assert Request("x", "allreduce", F32, 5).op is Product  # type: ignore[arg-type]


def test_signature_holds_what_matters_to_the_kind() -> None:
    reduce = Request("x", "allreduce", F32, Sum, 0.5, 2.0, root_rank=1).signature()
    assert (reduce.shape, reduce.dtype, reduce.op, reduce.prescale, reduce.root_rank) == ((2, 3), "float32", 1, 0.5, 0)
    gather = Request("x", "allgather", F32, Sum, prescale=0.5).signature()
    assert (gather.shape, gather.op, gather.prescale) == ((3,), 0, 1.0)
    broadcast = Request("x", "broadcast", F32, root_rank=1).signature()
    assert (broadcast.shape, broadcast.root_rank, broadcast.nbytes) == ((2, 3), 1, 24)
    assert Request("x", "barrier").signature().key == (0, "x")


def test_bits_of_another_type() -> None:
    bits = np.zeros(3, np.uint16)
    request = Request("x", "allreduce", bits, dtype_name="bfloat16", output=bits)
    assert request.array is request.output
    assert request.array is not None
    assert request.array.dtype == ml_dtypes.bfloat16
    assert np.shares_memory(request.array, bits)
    other = Request("x", "allreduce", bits, dtype_name="bfloat16", output=np.zeros(3, np.uint16))
    assert other.output is not None
    assert other.output.dtype == ml_dtypes.bfloat16


def test_output_may_be_the_input() -> None:
    array = np.ones(3)
    assert Request("x", "allreduce", array, output=array).output is array


def test_kinds_of_types() -> None:
    assert is_floating(dtype_of("bfloat16"))
    assert is_floating(dtype_of("float8_e4m3fn"))
    assert not is_floating(np.dtype(np.complex64))
    assert is_number(np.dtype(np.complex64))
    assert not is_number(np.dtype("S3"))
    assert not is_number(np.dtype("m8[s]"))
