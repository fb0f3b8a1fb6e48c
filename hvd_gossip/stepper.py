"""Accounting of training steps: what was compute, what was waiting; and artificial stragglers."""

from __future__ import annotations

import copy
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from hvd_gossip.engine import Engine
from hvd_gossip.observe.counters import Counters
from hvd_gossip.observe.metrics import MetricsWriter, NullMetrics

R = TypeVar("R")
TRAINING = "training"
"""The timeline's row of the training thread."""
ONE_OFF = 10.0
"""What computes so many times as long as the median of the steps before it is something else beside: a graph is traced, a model
evaluated. A slow worker is slowed by so many medians then, not by all of it."""
MEDIAN_OF = 31
"""Steps."""


class Stepper:
    """Times the steps of one optimizer. Owner: the training thread.

    Args:
        engine: whose waits count as waiting.
        metrics: where a step is recorded.
        counters: what the algorithm counts.
        slowdown: 1, or the factor by which `--inject slow` slows this rank: the step's compute time is slept
            (slowdown - 1) times more, but see `ONE_OFF`.
        span: takes what the timeline shows: `Recorder.span`.
        on_compute: is told how many seconds each step computed.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: MetricsWriter | NullMetrics,
        counters: Counters,
        slowdown: float,
        span: Callable[[str, str, float, float], None],
        on_compute: Callable[[float], None] | None = None,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._counters = counters
        self._slowdown = slowdown
        self._span = span
        self._on_compute = on_compute
        self._ended: float | None = None
        self._waited = 0.0
        self._recent: deque[float] = deque(maxlen=MEDIAN_OF)
        self.steps = 0

    def step(self, update: Callable[[], R]) -> R:
        """Runs one step's update, whatever it waits for, and records it."""
        self._engine.check()
        self._inject()
        result = update()
        self._record()
        return result

    def successor(self) -> Stepper:
        """A stepper that goes on after this one's last step, and records in its place."""
        other = copy.copy(self)
        self._metrics = NullMetrics()
        return other

    def _inject(self) -> None:
        if self._slowdown > 1.0 and self._ended is not None:
            computed = time.perf_counter() - self._ended - (self._engine.waited - self._waited)
            longest = ONE_OFF * statistics.median(self._recent) if self._recent else computed
            computed = max(0.0, min(computed, longest))
            self._recent.append(computed)
            time.sleep(computed * (self._slowdown - 1.0))

    def _record(self) -> None:
        now, waited = time.perf_counter(), self._engine.waited
        if self._ended is not None:
            seconds, wait = now - self._ended, waited - self._waited
            sample = self._counters.take_sample()
            self._metrics.step(seconds, seconds - wait, wait, self._counters, sample)
            self._span(TRAINING, "STEP", self._ended, now)
            if self._on_compute is not None:
                self._on_compute(seconds - wait)
        self._ended, self._waited = now, waited
        self.steps += 1


class Steppers:
    """Makes the steppers of one process; the first one's steps go into its metrics. Owner: the training thread.

    Args:
        make: `Stepper`, with all arguments given but `metrics` and `on_compute`.
        metrics: of the process.
    """

    def __init__(self, make: Callable[..., Stepper], metrics: MetricsWriter | NullMetrics) -> None:
        self._make = make
        self._metrics = metrics
        self._recording: Stepper | None = None
        self._hands_over = False

    def make(self, on_compute: Callable[[float], None] | None = None) -> Stepper:
        """A new stepper: the first one and, after `hand_over`, the one that goes on where that one ended are recorded."""
        if self._recording is None:
            self._recording = self._make(metrics=self._metrics, on_compute=on_compute)
        elif self._hands_over:
            self._recording, self._hands_over = self._recording.successor(), False
        else:
            return self._make(metrics=NullMetrics(), on_compute=on_compute)
        return self._recording

    def hand_over(self) -> None:
        """The next stepper that is made takes the place of the one whose steps are recorded, if there is one."""
        self._hands_over = self._recording is not None
