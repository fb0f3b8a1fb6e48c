"""Runs under `--algorithm auto` inside of a launch of checks, with a straggler for which gossip is worth it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import hvd_gossip.tensorflow as hvd

from hvd_gossip import runtime

AUTO_STEPS = 4
AVERAGED = AUTO_STEPS + 1
"""Steps that are averaged: the first one has no beginning, and so is not measured."""


@contextmanager
def automatic(**settings: object) -> Iterator[None]:
    """Inside, a new runtime says `auto`, and records that rank 1 takes four times as long for each step.

    It does not take that time: tracing a function on a busy machine takes seconds, which would be four times as long, too.
    """
    hvd.shutdown()
    hvd.init(**{"algorithm": "auto", "auto_steps": AUTO_STEPS, **settings})
    chooser = runtime.current().chooser
    assert chooser is not None
    chooser.record = partial(_record, chooser.record)  # type: ignore[method-assign]
    try:
        yield
    finally:
        hvd.shutdown()
        hvd.init(process_sets="dynamic")


def _record(record: Callable[[float], None], compute_seconds: float) -> None:
    record(0.04 if hvd.rank() == 1 else 0.01)


def in_force() -> str:
    """The algorithm."""
    return runtime.current().config.algorithm


def chosen() -> str:
    """What is in force once it is decided in these runs."""
    return "allreduce" if hvd.size() == 1 else "adpsgd"
