"""What every framework's distributed optimizer may be asked about averaging gradients, and whether it makes sense."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.collectives import Adasum, Average, ReduceOp

T = TypeVar("T")


def check_passes(passes: int) -> None:
    """Raises ValueError unless `backward_passes_per_step` is a positive integer."""
    if passes < 1 or passes != int(passes):
        raise ValueError(f"backward_passes_per_step must be a positive integer, not {passes!r}")


def check_reduction(op: int, gradient_predivide_factor: float, process_set: ProcessSet) -> None:
    """Raises as Horovod does for reductions of gradients that do not exist.

    Raises:
        ValueError: there is no such op, or a factor without Average. NotImplementedError: Adasum in a process set.
    """
    ReduceOp(op)
    if gradient_predivide_factor != 1.0 and op != Average:
        raise ValueError("gradient_predivide_factor not supported with op != Average")
    if op == Adasum and process_set is not global_process_set:
        raise NotImplementedError("Adasum does not support non-global process sets yet.")


def follows_choice(op: int, process_set: ProcessSet, algorithm: object = None) -> bool:
    """Whether `--algorithm auto` decides for an optimizer that was given these, rather than leaves it as it is."""
    return algorithm is None and op == Average and process_set is global_process_set


def reduction_fields(op: int, gradient_predivide_factor: float) -> dict[str, Any]:
    """A request's fields: gradients are divided by the factor before the sum, and multiplied by it / size after it."""
    return {
        "op": ReduceOp(op),
        "prescale": 1.0 / gradient_predivide_factor,
        "postscale": float(gradient_predivide_factor),
    }


_warned: set[tuple[str, str]] = set()


def check_mixing(algorithm: str, op: int, idle: Sequence[str], stacklevel: int = 2) -> None:
    """What is wrong with options of averaging gradients under an algorithm that averages parameters.

    Args:
        algorithm: its name.
        idle: the options given that merely tune an allreduce: warned of, each once with an algorithm.
        stacklevel: of the warning.

    Raises:
        ValueError: a reduction that would change results.
    """
    if op != Average:
        raise ValueError(f"algorithm {algorithm!r} averages parameters: it takes no op but Average")
    new = [name for name in idle if (algorithm, name) not in _warned]
    if new:
        _warned.update((algorithm, name) for name in new)
        warnings.warn(
            f"{', '.join(new)} of DistributedOptimizer tune the averaging of gradients and do nothing with algorithm "
            f"{algorithm!r}, which averages parameters (see the setting wire_dtype for smaller messages)",
            stacklevel=stacklevel + 1,
        )


def choose_groups(groups: Any, num_groups: int, stacklevel: int = 2) -> Any:
    """`groups`, or the deprecated `num_groups` in its place; None for no groups.

    Args:
        stacklevel: of the DeprecationWarning that `num_groups` brings.
    """
    if num_groups:
        warnings.warn(
            "Parameter `num_groups` has been replaced by `groups` and will be removed in v0.23.0.",
            DeprecationWarning,
            stacklevel=stacklevel + 1,
        )
        groups = num_groups if groups is None else groups
    return None if isinstance(groups, int) and groups == 0 else groups


def split_evenly(items: Sequence[T], count: int) -> list[list[T]]:
    """`count` runs of items whose lengths differ by at most one."""
    size, longer = divmod(len(items), count)
    ends = [i * size + min(i, longer) for i in range(count + 1)]
    return [list(items[start:end]) for start, end in itertools.pairwise(ends)]
