"""Parameter mixing: gossip algorithms exchange parameters with neighbours, around the wrapped optimizer's own step."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch

from hvd_gossip.basics import process_set_id
from hvd_gossip.gradient_options import check_mixing
from hvd_gossip.runtime import Runtime
from hvd_gossip.worker import Worker

from .arrays import ordered, stream_of
from .flat import FlatParameters, Named
from .options import Options, ParamGroups
from .strategy import Closure, Strategy, Update, parameters_of

R = TypeVar("R")


class ParameterMixing(Strategy):
    """The strategy of every gossip algorithm: trainable parameters live in flat buffers that a `Worker` mixes.

    Gradients stay local; `backward_passes_per_step` and `zero_grad()` mean what they mean without distribution. All
    ranks make their distributed optimizers in the same order. A parameter that becomes trainable later, or is moved to
    another device or type, makes the next step a collective one, in which the buffers are laid out anew.
    """

    def __init__(self, runtime: Runtime, options: Options, groups: ParamGroups) -> None:
        super().__init__(runtime, options, groups)
        _check_options(options, self.algorithm)
        self._inside = ""
        self._attach(self.named(groups))
        self._number = next(_numbers)
        _strategies.add(self)

    def synchronize(self, groups: ParamGroups) -> None:
        """Nothing to wait for: no communication touches gradients."""

    def step(self, groups: ParamGroups, update: Update[R], closure: Closure | None, synchronize: bool) -> R:
        self._check_outside("step()")
        fits = self._flat.adopt() and all(self._flat.holds(p) for p in parameters_of(groups) if p.requires_grad)
        if not (fits and self.active):
            self.release()
            self._attach(self.named(groups))
        with self._ordered():
            return self._worker.step(lambda: update(closure))

    def state_dict(self) -> dict[str, Any]:
        with self._ordered():
            return self._worker.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            with self._ordered():
                self._worker.load_state_dict(dict(state))

    @property
    def active(self) -> bool:
        """Whether the parameters are mixed now: not after `release()` or `shutdown()`."""
        return self._worker in self.runtime.workers

    def holds(self, parameter: torch.Tensor) -> bool:
        """Whether this very parameter is mixed by this strategy."""
        return self._flat.holds(parameter)

    def shares_memory(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor, a parameter or an entry of a state_dict, lies in the flat buffers."""
        return self._flat.shares_memory(tensor)

    @contextmanager
    def consensus(self) -> Iterator[None]:
        """Inside, the parameters are the exact mean over all workers; after, their own values again. Collective."""
        self._flat.adopt()
        with self._busy("consensus()"), self._ordered(), self._worker.consensus():
            yield

    def consensus_distance(self) -> float:
        """sqrt of the mean over workers of the squared L2 distance to the mean. Collective."""
        self._flat.adopt()
        with self._busy("consensus_distance()"), self._ordered():
            return self._worker.consensus_distance()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing is exchanged: parameters may be overwritten on all workers at once. Collective."""
        with self._busy("a broadcast"), self._ordered(), self._worker.paused():
            yield

    @contextmanager
    def joining(self) -> Iterator[None]:
        """Inside, this rank may join the others: nothing else happens to the parameters meanwhile."""
        self._flat.adopt()
        with self._busy("join()"), self._ordered():
            yield

    def release(self) -> None:
        """Ends the mixing, until the next step, and brings in what was exchanged last. Peers go on without this worker."""
        self._finalizer.detach()
        if self.active:
            with self._ordered():
                self.runtime.detach(self._worker)

    def _attach(self, named: Named) -> None:
        trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        for other in mixing_strategies():
            if other is not self and any(other.holds(parameter) for _, parameter in trainable):
                other.release()  # an optimizer that this one replaces
        devices = {str(parameter.device) for _, parameter in trainable}
        if len(devices) > 1:
            raise ValueError(f"parameters of one optimizer must be on one device to be mixed, not on {sorted(devices)}")
        self._flat = FlatParameters(trainable)
        settings = dict(self.options.settings)
        if self.options.algorithm is not None:
            settings["algorithm"] = self.options.algorithm
        with self._ordered():
            self._worker: Worker = self.runtime.attach(
                self._flat.arrays(),
                training_stream=stream_of(self._device()),
                process_set=process_set_id(self.options.process_set),
                **settings,
            )
        self._finalizer = weakref.finalize(self, self.runtime.abandon, self._worker)
        self._finalizer.atexit = False

    @contextmanager
    def _busy(self, inside: str) -> Iterator[None]:
        self._check_outside(inside)
        self._inside = inside
        try:
            yield
        finally:
            self._inside = ""

    def _check_outside(self, what: str) -> None:
        if self._inside:
            raise RuntimeError(f"{what} inside {self._inside} of the same parameters")

    def _ordered(self) -> AbstractContextManager[object]:
        """CuPy works on torch's stream."""
        return ordered(self._device())

    def _device(self) -> torch.device:
        return next((buffer.device for buffer in self._flat.buffers), torch.device("cpu"))


_numbers = itertools.count()
_strategies: weakref.WeakSet[ParameterMixing] = weakref.WeakSet()


def mixing_strategies() -> list[ParameterMixing]:
    """The strategies that mix now, oldest first: the same order on every rank."""
    return sorted((s for s in _strategies if s.active), key=lambda strategy: strategy._number)


def _check_options(options: Options, algorithm: str) -> None:
    default = Options()
    tuning = ("compression", "gradient_predivide_factor", "groups", "sparse_as_dense")
    idle = [name for name in tuning if getattr(options, name) != getattr(default, name)]
    check_mixing(algorithm, options.op, idle, stacklevel=4)
