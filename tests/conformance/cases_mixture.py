"""Horovod, "Concepts", "Process Sets", "Tensor Fusion": whatever is submitted, in whatever order, each result is its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.conformance.case import Array, Cases, parts, same
from tests.conformance.framework import Framework, Operation

CASES = Cases()
ROUNDS = 12
REDUCTIONS: dict[str, Callable[[Array], Array]] = {
    "Sum": lambda stack: stack.sum(0),
    "Min": lambda stack: stack.min(0),
    "Max": lambda stack: stack.max(0),
}


@dataclass(frozen=True)
class _Planned:
    """An operation of some ranks, and what it gives this rank (if it is one of them)."""

    operation: Operation
    expected: Array
    dtype: str
    members: list[int]


def _matrices(random: np.random.Generator, rows: list[int], columns: int) -> list[Array]:
    return [random.integers(0, 5, (count, columns)).astype(np.float64) for count in rows]


def _plan(f: Framework, random: np.random.Generator, name: str, members: list[int], process_set: Any) -> _Planned:
    """One operation, drawn alike on all ranks."""
    k, columns, dtype = len(members), int(random.integers(1, 4)), str(random.choice(f.reduced))
    kind = str(random.choice(["allreduce", "allgather", "broadcast", "alltoall", "reducescatter"]))
    me = members.index(f.hvd.rank()) if f.hvd.rank() in members else 0
    options: dict[str, Any] = {"name": name, "process_set": process_set}
    args: tuple[Any, ...] = ()
    even = [int(random.integers(0, 50))] * k
    if kind == "allgather":
        theirs = _matrices(random, [int(count) for count in random.integers(0, 5, k)], columns)
        expected = np.concatenate(theirs)
    elif kind == "alltoall":
        splits = random.integers(0, 4, (k, k))
        theirs = _matrices(random, [int(count) for count in splits.sum(1)], columns)
        begins = splits.cumsum(1) - splits
        expected = np.concatenate([theirs[j][begins[j, me] : begins[j, me] + splits[j, me]] for j in range(k)])
        options["splits"] = f.tensor(splits[me], "int32")
    elif kind == "broadcast":
        theirs, root = _matrices(random, even, columns), int(random.integers(k))
        args, expected = (members[root],), theirs[root]
    elif kind == "reducescatter":
        theirs = _matrices(random, even, columns)
        options["op"], expected = f.hvd.Sum, sum(theirs)[parts(even[0], k)[me]]
    else:
        theirs, op = _matrices(random, even, columns), str(random.choice(list(REDUCTIONS)))
        options["op"], expected = getattr(f.hvd, op), REDUCTIONS[op](np.stack(theirs))
    return _Planned((kind, (f.tensor(theirs[me], dtype), *args), options), expected, dtype, members)


def run_mixture(f: Framework, sets: list[Any], seed: int) -> None:
    """Rounds of many operations at once; names come back with other kinds, types and shapes."""
    together, own = np.random.default_rng(seed), np.random.default_rng([seed, f.hvd.rank()])
    for _ in range(ROUNDS):
        chosen = [(i, sets[int(together.integers(len(sets)))]) for i in range(int(together.integers(1, 25)))]
        plans = [_plan(f, together, f"mixed {i}", list(some.ranks), some) for i, some in chosen]
        mine = [plan for plan in plans if f.hvd.rank() in plan.members]
        own.shuffle(mine)  # type: ignore[arg-type]
        for plan, result in zip(mine, f.together([plan.operation for plan in mine]), strict=True):
            output = result[0] if plan.operation[0] == "alltoall" else result
            same(f, output, plan.expected, plan.dtype)


@CASES.add()
def any_mixture_of_operations_in_any_order(f: Framework) -> None:
    """Concepts: operations of all kinds, types and shapes, under way at the same time."""
    for seed in range(3):
        run_mixture(f, [f.hvd.global_process_set], seed)


@CASES.add(ranks=3)
def any_mixture_of_operations_on_process_sets_that_share_ranks(f: Framework) -> None:
    """Process sets: multiple subsets run distinct collective operations in parallel, and the world does as well."""
    n = f.hvd.size()
    made = [f.hvd.add_process_set(ranks) for ranks in ([0, n - 1], list(range(n - 1)), [1])]
    for seed in range(3):
        run_mixture(f, [f.hvd.global_process_set, *made], 10 + seed)
    assert all(f.hvd.remove_process_set(some) is True for some in made)


@CASES.add(ranks=2)
def any_mixture_of_reductions_while_ranks_join_early(f: Framework) -> None:
    """API, join: step after step the same names, of which ranks that have joined are zeros."""
    n, rank = f.hvd.size(), f.hvd.rank()
    for seed in range(10):
        together, own = np.random.default_rng(30 + seed), np.random.default_rng([30 + seed, rank])
        steps = together.integers(0, 5, n)
        tensors = [(int(together.integers(0, 2000)), str(together.choice(f.reduced))) for _ in range(8)]
        for step in range(int(steps[rank])):
            active = steps > step
            values = [np.random.default_rng([seed, step, i]).integers(0, 4, (n, tensors[i][0])) for i in range(8)]
            order = own.permutation(8)
            operations: list[Operation] = [
                ("allreduce", (f.tensor(values[i][rank], tensors[i][1]),), {"name": f"weight {i}", "op": f.hvd.Sum})
                for i in order
            ]
            for i, result in zip(order, f.together(operations), strict=True):
                same(f, result, values[i][active].sum(0), tensors[i][1])
        f.hvd.join()
