"""What a collective operation is: the request of one rank, its result, and the part of it that all ranks must agree on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from hvd_gossip.buffers.arrays import module_of
from hvd_gossip.collectives.memory import is_on_device
from hvd_gossip.transport.endpoint import Array

KINDS = ("allreduce", "allgather", "broadcast", "barrier", "alltoall", "reducescatter", "join")
PROCESS_SET_KINDS = ("add_process_set", "remove_process_set")
"""What Collectives asks of the coordinator by itself; the array holds the ranks, or the number of the set."""
JOIN, PROCESS_SET = "join", "process_set"
"""Names of all joins, and of all that changes process sets: no other names are in flight in a process set at once."""
BY_ROWS = ("allgather", "alltoall")
"""Their first dimensions may differ between ranks, and so are no part of what is agreed on."""
REDUCING = ("allreduce", "reducescatter")
OF_UNKNOWN_LENGTH = ("allgather", "alltoall", "reducescatter")
"""Their results are allocated once it is known what all ranks submitted."""
WITHOUT_ARRAY = ("barrier", "join")
MAX_NAME = 4096
"""Longest name, in bytes of UTF-8."""


class ReduceOp(IntEnum):
    """Horovod's reduction operations, with Horovod's values."""

    AVERAGE = 0
    SUM = 1
    ADASUM = 2
    MIN = 3
    MAX = 4
    PRODUCT = 5


Average, Sum, Adasum = ReduceOp.AVERAGE, ReduceOp.SUM, ReduceOp.ADASUM
Min, Max, Product = ReduceOp.MIN, ReduceOp.MAX, ReduceOp.PRODUCT


class Signature(NamedTuple):
    """What every rank must submit alike under one name. Fields that a kind does not use hold their defaults.

    Attributes:
        shape: of the array; for allgather and alltoall without the first dimension, which may differ.
        device: "CPU" or "GPU".
        group: name of the group that is negotiated as a whole, or "".
        group_size: number of requests in the group.
    """

    name: str
    kind: str
    dtype: str = "uint8"
    shape: tuple[int, ...] = ()
    op: int = 0
    prescale: float = 1.0
    postscale: float = 1.0
    root_rank: int = 0
    process_set: int = 0
    live_only: bool = False
    device: str = "CPU"
    group: str = ""
    group_size: int = 0

    @property
    def key(self) -> tuple[int, str]:
        """Names are unique within a process set."""
        return self.process_set, self.name

    @property
    def nbytes(self) -> int:
        """Bytes of an array of this shape."""
        return math.prod(self.shape) * dtype_of(self.dtype).itemsize


@dataclass(slots=True)
class Request:
    """One rank's part in a collective operation. The arrays belong to the operation until its future is done.

    Attributes:
        name: identifies the operation among those in flight; every rank uses the same.
        kind: "allreduce", "allgather", "broadcast", "barrier", "alltoall", "reducescatter" or "join".
        array: C-contiguous NumPy or CuPy array; None for barrier and join. allgather joins along the first dimension,
            alltoall and reducescatter split along it.
        op: how allreduce combines. Integers wrap around as NumPy's do, and their average is rounded down; half types are
            added in float32 and rounded once. bool: Sum and Max are "or", Product and Min are "and", as in NumPy.
            reducescatter takes Average and Sum (as Horovod's). Adasum takes float16, bfloat16, float32 and float64.
        prescale, postscale: factors before and after the reduction. For floating Sum and Average they are applied
            together, once, in the accumulator's type; integers are scaled and cut towards zero, then averaged.
        root_rank: whose array a broadcast gives to all.
            A global rank, in every process set.
        output: where the result goes: an array like `array`, or `array` itself; None allocates one. Must be None for
            allgather, alltoall and reducescatter.
        process_set: number of the process set that takes part; 0 is all ranks.
        live_only: run among the ranks that have neither departed nor joined, instead of failing, or counting zeros, if
            some have. Not for alltoall.
        dtype_name: the elements' type if `array` only carries their bits ("bfloat16" in an array of uint16).
        group: requests of one group are answered together, or not at all; with their number, `group_size`.
        splits: for alltoall: rows for each member of the process set, in its order; (): as many for each.
        stream: for a CuPy array, the stream that was current when the request was made: its result is for use there.
        ready: an event recorded there then: it is waited for.

    Raises:
        ValueError: the request cannot be carried out, whatever the other ranks ask for.
    """

    name: str
    kind: str
    array: Array | None = None
    op: ReduceOp = ReduceOp.AVERAGE
    prescale: float = 1.0
    postscale: float = 1.0
    root_rank: int = 0
    output: Array | None = None
    process_set: int = 0
    live_only: bool = False
    dtype_name: str = ""
    group: str = ""
    group_size: int = 0
    splits: tuple[int, ...] = ()
    stream: Any = field(init=False, default=None, repr=False, compare=False)
    ready: Any = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name or len(self.name.encode()) > MAX_NAME:
            raise ValueError(f"an operation needs a name of 1 to {MAX_NAME} bytes, not {self.name!r:.80}")
        if self.kind not in KINDS and not (self.name == PROCESS_SET and self.kind in PROCESS_SET_KINDS):
            raise ValueError(f"{self.name}: unknown kind of operation {self.kind!r}; there are {', '.join(KINDS)}")
        if self.kind not in WITHOUT_ARRAY:
            self._check_arrays()
        elif self.array is not None or self.output is not None:
            raise self._error(f"a {self.kind} takes no array")
        if self.kind in REDUCING:
            self._check_reduction()
        if bool(self.group) != (self.group_size > 0):
            raise self._error("group and group_size come together")
        if self.splits or self.kind == "alltoall":
            self._check_splits()

    def signature(self) -> Signature:
        """What the other ranks must submit alike."""
        array, kind = self.array, self.kind
        if array is None:
            is_join = kind == "join"  # it waits neither for its name nor for who is gone
            name, live_only = (JOIN, True) if is_join else (self.name, self.live_only)
            return Signature(name, kind, process_set=self.process_set, live_only=live_only)
        if kind in PROCESS_SET_KINDS:
            return Signature(self.name, kind, shape=tuple(array.tolist()), live_only=True)
        device = "GPU" if is_on_device(array) else "CPU"
        shape, reduces = array.shape, kind in REDUCING
        return Signature(
            self.name,
            kind,
            self.dtype_name,
            shape[1:] if kind in BY_ROWS else shape,
            int(self.op) if reduces else 0,
            self.prescale if reduces else 1.0,
            self.postscale if reduces else 1.0,
            self.root_rank if kind == "broadcast" else 0,
            self.process_set,
            self.live_only,
            device,
            self.group,
            self.group_size,
        )

    def _error(self, message: str) -> ValueError:
        return ValueError(f"{self.kind} {self.name!r}: {message}")

    def _check_arrays(self) -> None:
        array, output = self.array, self.output
        if array is None or isinstance(array, np.generic):
            raise self._error(f"an array is needed, not {array!r}")
        if not array.flags.c_contiguous:
            raise self._error(
                f"the array must be C-contiguous, not one of shape {array.shape}, strides {array.strides}"
            )
        dtype = self._check_dtype(array.dtype)
        if is_on_device(array):
            self.stream = module_of(array).cuda.get_current_stream()
            self.ready = self.stream.record()
        if array.dtype != dtype:
            self.array = array.view(dtype)
        if self.kind in OF_UNKNOWN_LENGTH:
            if array.ndim == 0:
                raise self._error(f"a rank-zero tensor (a scalar) cannot be {_PAST[self.kind]}")
            if output is not None:
                raise self._error("the result's length is not known yet: output must be None")
        elif output is array:
            self.output = self.array
        elif output is not None:
            self.output = self._check_output(output, dtype)

    def _check_dtype(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """The elements' type; `dtype_name` becomes its name."""
        if not stored.isnative or not (is_number(stored) or stored.kind in "mM"):
            raise self._error(f"elements of type {stored} cannot be sent")
        if not self.dtype_name:
            self.dtype_name = name_of(stored)
            return stored
        dtype = dtype_of(self.dtype_name)
        if dtype.itemsize != stored.itemsize:
            raise self._error(f"{dtype} cannot be sent from an array of {stored}")
        return dtype

    def _check_output(self, output: Array, dtype: np.dtype[Any]) -> Array:
        assert self.array is not None
        alike = output.shape == self.array.shape and output.dtype.itemsize == dtype.itemsize
        if not alike or type(output) is not type(self.array):
            wanted = f"a {type(self.array).__name__} of {dtype} and shape {self.array.shape}"
            raise self._error(f"output must be {wanted}, not {output.dtype} of shape {output.shape}")
        writeable = getattr(output.flags, "writeable", True)  # CuPy's arrays all are
        if not output.flags.c_contiguous or not writeable:
            raise self._error("output must be C-contiguous and writeable")
        return output if output.dtype == dtype else output.view(dtype)

    def _check_reduction(self) -> None:
        if type(self.op) is not ReduceOp:
            self.op = ReduceOp(self.op)
        dtype = dtype_of(self.dtype_name)
        if not is_number(dtype):
            raise self._error(f"elements of type {dtype} cannot be reduced")
        scaled = self.prescale != 1.0 or self.postscale != 1.0
        if dtype.kind == "b" and (scaled or self.op is ReduceOp.AVERAGE):
            raise self._error("bool can be neither averaged nor scaled")
        if self.kind == "reducescatter" and self.op not in (ReduceOp.AVERAGE, ReduceOp.SUM):
            raise self._error(f"only Average and Sum are supported, not {self.op.name.capitalize()}")
        if self.op is ReduceOp.ADASUM and not is_floating(dtype):
            raise self._error(f"Adasum takes floating elements, not {dtype}")

    def _check_splits(self) -> None:
        if self.kind != "alltoall":
            raise self._error("only alltoall takes splits")
        if self.live_only:
            raise self._error(
                "live_only has no meaning for alltoall, whose splits name every member of the process set"
            )
        self.splits = tuple(map(int, self.splits))
        if any(abs(rows) >= 1 << 62 for rows in self.splits):
            raise self._error(f"splits are numbers of rows, not {self.splits}")


_PAST = {"allgather": "gathered", "alltoall": "split", "reducescatter": "scattered"}


class Result(NamedTuple):
    """Attributes:
    output: the result; None for barrier and join.
    sizes: one a rank, in the order of `ranks`. allgather: the first dimensions of the ranks' arrays; alltoall: the rows
        received from each rank; reducescatter: the rows that each rank got.
    ranks: who took part, as global ranks; who has joined only did in Adasum.
    last_joined: for join, the rank that joined last; else -1.
    """

    output: Array | None
    sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    last_joined: int = -1


@lru_cache(maxsize=256)
def name_of(dtype: np.dtype[Any]) -> str:
    """A dtype's name; NumPy takes microseconds to make one."""
    return dtype.name


@lru_cache(maxsize=256)
def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of a name, ml_dtypes' included (importing that package taught NumPy their names).

    Raises:
        ValueError: there is none.
    """
    try:
        return np.dtype(name)
    except TypeError as error:
        raise ValueError(f"unknown element type {name!r}") from error


@lru_cache(maxsize=256)
def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether elements can be added: bool, integers, floating types with ml_dtypes' ones, and complex."""
    return dtype.kind in "biufc" or is_floating(dtype)


@lru_cache(maxsize=256)
def is_floating(dtype: np.dtype[Any]) -> bool:
    """True for NumPy's and ml_dtypes' floating types."""
    if dtype.kind != "V":
        return dtype.kind == "f"
    try:
        ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    except ValueError:
        return False
    return True
