"""One replica under one algorithm: what a framework's optimizer talks to."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from hvd_gossip.algorithms.base import Algorithm
from hvd_gossip.engine import Engine
from hvd_gossip.stepper import Stepper

R = TypeVar("R")


class Worker:
    """Drives an algorithm from the training thread. Made by `Runtime.attach`.

    Attributes:
        algorithm: the algorithm; its `averages` says whether gradients or parameters are averaged.
        replica: the flat buffers.
    """

    def __init__(self, engine: Engine, algorithm: Algorithm, stepper: Stepper) -> None:
        self.algorithm = algorithm
        self.replica = algorithm.context.replica
        self._engine = engine
        self._stepper = stepper

    def start(self) -> None:
        """Has the algorithm spawn what runs in the background."""

        async def begin() -> None:
            self.algorithm.start()

        self.call(begin, "starting the algorithm")

    def step(self, update: Callable[[], R]) -> R:
        """One training step around the wrapped optimizer's `update`, which is called exactly once.

        Raises:
            EngineError: the engine failed since the last call. WaitTimeoutError: a neighbour did not come in time.
        """
        return self._stepper.step(lambda: self._drive(update))

    def call(self, start: Callable[[], Any], what: str) -> None:
        """Has the engine run `start()`, after all that this thread has enqueued on a device, and before all that it will."""
        space = self.replica.space
        space.updated()

        def begin() -> Any:
            space.bind()
            return start()

        self._engine.call(begin, what)
        space.follow()

    def _drive(self, update: Callable[[], R]) -> R:
        self.replica.space.follow()
        steps = self.algorithm.step(update)
        try:
            while True:
                wait = next(steps)
                self.call(functools.partial(_run, wait), f"{self.algorithm.name} step")
        except StopIteration as stop:
            result: R = stop.value
            return result

    @contextmanager
    def consensus(self) -> Iterator[None]:
        """Inside, the flat buffers hold the exact mean over the live workers that have not joined; after, each worker's own
        values, bit by bit.

        A collective: every live worker enters, at a place of its own choosing.
        """
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def consensus_distance(self) -> float:
        """sqrt(mean over the live workers of ||x_i - mean||^2), L2 over all parameters. A collective."""
        self._enter()
        try:
            squared = np.array([self.replica.held_distance()])
            self._average([squared], "distance")
        finally:
            self._leave()
        return math.sqrt(squared[0])

    def pause(self) -> None:
        """Ends the exchange under way and folds in what it brought. A collective; `resume` follows, or the departure."""
        self.call(self.algorithm.pause, "pausing the exchanges")
        self.algorithm.settle()

    def resume(self) -> None:
        """Goes on after `pause`. A collective."""
        self.call(self.algorithm.resume, "going on with the exchanges")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing is exchanged, and the flat buffers may be overwritten on all workers at once. A collective."""
        self.pause()
        try:
            yield
        finally:
            self.algorithm.forget()
            self.resume()

    def state_dict(self) -> dict[str, Any]:
        """The algorithm's own state beside the parameters."""
        self.replica.space.follow()
        return self.algorithm.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.algorithm.load_state_dict(state)
        self.replica.space.updated()

    def _enter(self) -> None:
        self.call(self.algorithm.pause, "pausing the exchanges")
        self.replica.hold()
        self.algorithm.preview()
        self.call(lambda: self.algorithm.average(self._name("mean")), "the exact average")

    def _leave(self) -> None:
        self.replica.release()
        self.resume()

    def _average(self, arrays: list[np.ndarray], what: str) -> None:
        average = self.algorithm.context.exact_average
        self.call(lambda: _run(lambda: average(self._name(what), arrays)), "the exact average")

    def _name(self, what: str) -> str:
        return f"worker.{self.algorithm.context.channel}.{what}.{self.algorithm.phase}"


async def _run(wait: Callable[[], Any]) -> None:
    """A coroutine out of whatever awaitable `wait` gives, begun on the engine's thread."""
    await wait()
