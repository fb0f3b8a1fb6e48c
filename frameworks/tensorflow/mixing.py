"""Parameter mixing: gossip algorithms exchange parameters with neighbours, around the update of an optimizer.

TensorFlow owns the memory of variables, and an update has been made by the time its operation in the graph is reached. So a
step hands over the variables' values before and after it, and gets back what they are to be: one crossing for all of them.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.basics import ProcessSet, global_process_set, process_set_id
from hvd_gossip.errors import ConfigError
from hvd_gossip.runtime import Runtime
from hvd_gossip.worker import Worker

from .arrays import Array, as_array
from .crossing import cross
from .mirror import FlatMirror
from .submit import like
from .variables import bare, label_of


class ParameterMixing:
    """Variables that a `Worker` mixes. All ranks make their first steps in the same order: the first one attaches.

    Args:
        variables: tf.Variable or keras.Variable, floating; the same on all ranks.
        process_set: the ranks that mix with each other.
        settings: overrides of the configuration: `algorithm`, `topology`...

    Raises:
        ValueError: a variable that cannot be averaged.
    """

    def __init__(
        self,
        variables: Sequence[Any],
        process_set: ProcessSet = global_process_set,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.variables = list(variables)
        self.process_set = process_set
        self._settings = dict(settings or {})
        self._ids = {id(bare(variable)) for variable in self.variables}
        self._state: dict[str, Any] = {}
        self._runtime: Runtime | None = None
        self._inside = ""
        self._reachable = (
            tf.compat.v1.executing_eagerly_outside_functions()
        )  # else only a session reads and writes them
        for variable in self.variables:
            if not tf.as_dtype(variable.dtype).is_floating:
                raise ValueError(f"variable {label_of(variable)} of type {variable.dtype} cannot be averaged")

    def read(self) -> list[Any]:
        """The variables' values now, as tensors."""
        return [bare(variable).read_value() for variable in self.variables]

    def step(self, before: Sequence[Any], name: str) -> list[Any]:
        """Mixes, after an update: the variables get the values that the algorithm gives. In a graph: when that runs.

        Args:
            before: what `read()` gave before the update.
            name: of the crossing in the graph.

        Returns:
            The assignments, for graphs of tf.compat.v1.
        """
        after = self.read()

        def run(arrays: list[Array]) -> list[Array]:
            return self._step(arrays[: len(after)], arrays[len(after) :])

        return self._put(cross(run, [*before, *after], [like(tensor) for tensor in after], name))

    def step_since(self, name: str) -> list[Any]:
        """As `step`, for who does not see the updates: all that was done to the variables since the last step is one."""
        after = self.read()

        def run(arrays: list[Array]) -> list[Array]:
            return self._step(self._mirror.values() if self.active else arrays, arrays)

        return self._put(cross(run, after, [like(tensor) for tensor in after], name))

    @property
    def active(self) -> bool:
        """Whether the variables are mixed now: not before the first step, nor after `release()` or `shutdown()`."""
        return self._runtime is not None and self._worker in self._runtime.workers

    def holds(self, variable: Any) -> bool:
        """Whether this very variable is mixed here."""
        return id(bare(variable)) in self._ids

    @contextmanager
    def consensus(self) -> Iterator[None]:
        """Inside, the variables are the exact mean over all workers; after, their own values again. Collective."""
        with self._busy("consensus()"):
            own = self._adopt_all()
            with self._worker.consensus():
                try:
                    self._assign(self._mirror.values())
                    yield
                finally:
                    self._assign(own)

    def consensus_distance(self) -> float:
        """sqrt of the mean over workers of the squared L2 distance to the mean. Collective."""
        with self._busy("consensus_distance()"):
            self._adopt_all()
            return self._worker.consensus_distance()

    @contextmanager
    def overwriting(self) -> Iterator[None]:
        """Inside, nothing is exchanged: `overwrite` may be called on all workers at once. Collective."""
        with self._busy("a broadcast"), self._settling(), self._worker.paused():
            yield

    def overwrite(self, values: Mapping[int, Array]) -> None:
        """Replaces what the neighbours see of variables, by the variables' ids; the variables are assigned to elsewhere."""
        own = self._mirror.values()
        given = [values.get(id(bare(variable)), old) for variable, old in zip(self.variables, own, strict=True)]
        self._mirror.adopt(given)

    @contextmanager
    def joining(self) -> Iterator[None]:
        """Inside, this rank may join the others: nothing else happens to the variables meanwhile."""
        with self._busy("join()"), self._settling():
            yield

    def release(self, values: dict[int, Array]) -> None:
        """Ends the mixing, until the next step. Peers go on without this worker.

        Args:
            values: of variables, by their ids: what was exchanged last is brought in, for those that are mixed here.
        """
        if not self.active:
            return
        assert self._runtime is not None
        self.overwrite(values)
        self._finalizer.detach()
        self._runtime.detach(self._worker)
        for variable, value in zip(self.variables, self._mirror.values(), strict=True):
            if id(bare(variable)) in values:
                values[id(bare(variable))] = value

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of this rank needs beside the variables, a push-sum weight say; may be empty."""
        return self._worker.state_dict() if self.active else dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`'s value."""
        if self.active and state:
            self._worker.load_state_dict(dict(state))
        else:
            self._state = dict(state)

    def _step(self, before: list[Array], after: list[Array]) -> list[Array]:
        if self._inside:
            raise RuntimeError(f"a step inside {self._inside} of the same variables")
        now, holds_before = runtime.current(), True
        if self.active and self._runtime is now and self._mirror.fits(before):
            self._mirror.adopt(before)
        else:
            holds_before = self._attach(now, before)
        applied = self._worker.replica.applied

        def update() -> None:
            if holds_before and self._worker.replica.applied == applied:
                self._mirror.replace(after)
            else:
                self._mirror.advance(before, after)

        self._worker.step(update)
        return self._mirror.values()

    def _put(self, values: Sequence[Any]) -> list[Any]:
        return [bare(variable).assign(value) for variable, value in zip(self.variables, values, strict=True)]

    def _attach(self, now: Runtime, before: Sequence[Array]) -> bool:
        """Begins to mix; returns whether with these values: one that mixed before may have brought in its last exchange.

        Raises:
            ConfigError: the runtime has begun anew since these variables' step was traced, with an algorithm that averages
                gradients.
        """
        algorithm = now.config.override(self._settings).algorithm
        if find_algorithm(algorithm).averages == "gradients":
            raise ConfigError(
                f"algorithm {algorithm!r} averages gradients, but this training step was traced when gossip was in force: "
                "trace it anew, with Keras by model.compile()"
            )
        values = dict(zip((id(bare(variable)) for variable in self.variables), before, strict=True))
        replaced = [other for other in mixing_strategies() if self._ids & other._ids]
        for other in replaced:
            other.release(values)  # of an optimizer that this one replaces
        self._mirror = FlatMirror(list(values.values()))
        members = process_set_id(self.process_set)
        self._worker: Worker = now.attach(self._mirror.buffers, process_set=members, **self._settings)
        self._runtime, self._number = now, next(_numbers)
        self._finalizer = weakref.finalize(self, now.abandon, self._worker)
        self._finalizer.atexit = False
        if self._state:
            self._worker.load_state_dict(self._state)
            self._state = {}
        _strategies.add(self)
        for variable in self.variables:
            # Lives as long as they: Keras drops a model's optimizer before the next one, which takes over, makes a step.
            bare(variable)._hvd_mixing = self
        return not replaced

    def _adopt_all(self) -> list[Array]:
        """Takes over the variables' present values, and returns them.

        Raises:
            RuntimeError: only a session could read them.
        """
        if not self._reachable:
            raise RuntimeError("the variables belong to a graph of tf.compat.v1, whose values are its session's")
        values = [as_array(tensor).copy() for tensor in self.read()]
        self._mirror.adopt(values)
        return values

    def _assign(self, values: Sequence[Array]) -> None:
        for variable, value in zip(self.variables, values, strict=True):
            bare(variable).assign(value)

    @contextmanager
    def _settling(self) -> Iterator[None]:
        """What is folded into the buffers inside, outside of a step, the variables get as well."""
        if not self._reachable:
            yield
            return
        self._adopt_all()
        yield
        self._assign(self._mirror.values())

    @contextmanager
    def _busy(self, inside: str) -> Iterator[None]:
        if self._inside:
            raise RuntimeError(f"{inside} inside {self._inside} of the same variables")
        self._inside = inside
        try:
            yield
        finally:
            self._inside = ""


_numbers = itertools.count()
_strategies: weakref.WeakSet[ParameterMixing] = weakref.WeakSet()


def mixing_strategies() -> list[ParameterMixing]:
    """What mixes now, oldest first: the same order on every rank."""
    return sorted((one for one in _strategies if one.active), key=lambda one: one._number)


@contextmanager
def overwriting(variables: Sequence[Any]) -> Iterator[Callable[[Sequence[Array]], None]]:
    """Inside, nothing is exchanged of what mixes any of the variables. Collective.

    Yields:
        A function of the variables' new values, as arrays in the variables' order, to be called inside.
    """
    with ExitStack() as stack:
        chosen = [one for one in mixing_strategies() if any(one.holds(variable) for variable in variables)]
        for strategy in chosen:
            stack.enter_context(strategy.overwriting())

        def overwrite(values: Sequence[Array]) -> None:
            by_id = {id(bare(variable)): value for variable, value in zip(variables, values, strict=True)}
            for strategy in chosen:
                strategy.overwrite(by_id)

        yield overwrite
