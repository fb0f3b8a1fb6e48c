"""Accounting of steps whose gradients the collectives average: for metrics, and for artificial stragglers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hvd_gossip import runtime
from hvd_gossip.runtime import Runtime
from hvd_gossip.stepper import Stepper


class Meter:
    """Records each reduction of gradients as a step, under the runtime that there is."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._stepper: Stepper

    def __call__(self, reduce: Callable[[], Any]) -> Any:
        """Calls `reduce`, a step's, and returns what it returns."""
        now = runtime.current()
        if self._runtime is not now:
            self._runtime, self._stepper = now, now.stepper()
        return self._stepper.step(reduce)
