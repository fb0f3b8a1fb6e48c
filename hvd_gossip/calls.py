"""What a call of an operation asks of the runtime, whatever the framework: names, groups, process sets, reductions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hvd_gossip.basics import ProcessSet, operation_name, process_set_id
from hvd_gossip.collectives import Average, ReduceOp, Sum


@dataclass(frozen=True)
class Call:
    """What all tensors of one call of an operation have in common.

    Attributes:
        kind: as in Request.
        name: the operation's full name.
        fields: further fields of the requests.
        grouped: the tensors are negotiated as a whole, under names with "_1of3"... appended (Horovod's).
    """

    kind: str
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    grouped: bool = False

    def backward(self, kind: str, **fields: Any) -> Call:
        """The call in the backward pass: under the same name with ".grad", over the same process set."""
        return Call(kind, f"{self.name}.grad", {"process_set": self.fields["process_set"], **fields}, self.grouped)

    def each(self, count: int) -> Iterator[dict[str, Any]]:
        """The fields of the requests of `count` tensors."""
        for number in range(1, count + 1):
            if self.grouped:
                name = f"{self.name}_{number}of{count}"
                yield {"kind": self.kind, "name": name, "group": self.name, "group_size": count, **self.fields}
            else:
                yield {"kind": self.kind, "name": self.name, **self.fields}


def make_call(kind: str, name: str | None, process_set: ProcessSet, *, grouped: bool = False, **fields: Any) -> Call:
    """The call of an operation by a user.

    The number of an unnamed operation is taken before anything is checked: a rank that fails stays in step with the others.

    Raises:
        NotInitializedError: before `init()`. ValueError: this rank is not in the process set, or it is not registered.
    """
    number = process_set_id(process_set)
    full_name = operation_name(f"grouped_{kind}" if grouped else kind, name, number)
    return Call(kind, full_name, {"process_set": number, **fields}, grouped)


def reduce_op(op: int | None, average: bool | None, stacklevel: int = 2) -> ReduceOp:
    """The reduction that `op` and `average`, which it replaces, ask for; Average by default (Horovod's rule).

    Args:
        stacklevel: of the DeprecationWarning that `average` brings.

    Raises:
        ValueError: both are given, or there is no such op.
    """
    if op is not None and average is not None:
        raise ValueError("The op parameter supersedes average. Please provide only one of them.")
    if average is not None:
        warnings.warn(
            "Parameter `average` has been replaced with `op` and will be removed in v0.21.0",
            DeprecationWarning,
            stacklevel=stacklevel + 1,
        )
        return Average if average else Sum
    return Average if op is None else ReduceOp(op)


def backward_of(call: Call) -> Call:
    """The call that reduces the gradients of a reduction: the same reduction.

    Raises:
        NotImplementedError: it has no gradient.
    """
    check_linear(call)
    return call.backward("allreduce", **{key: call.fields[key] for key in ("op", "prescale", "postscale")})


def averaging(call: Call) -> Call:
    """The call that averages gradients of an operation that moves data."""
    return call.backward("allreduce", op=Average, prescale=1.0, postscale=1.0)


def check_linear(call: Call) -> None:
    """Raises NotImplementedError if the reduction has no gradient."""
    if call.fields["op"] not in (Average, Sum):
        raise NotImplementedError(f"{call.kind} {call.name!r}: only op=Average and op=Sum have a gradient")
