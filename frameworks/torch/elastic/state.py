"""The state of a PyTorch training run: model, optimizer, samplers and any other objects (Horovod's class)."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from hvd_gossip.basics import rank
from hvd_gossip.elastic import ObjectState
from hvd_gossip.objects import allgather_object, broadcast_object

from ..functions import broadcast_optimizer_state, broadcast_parameters
from .sampler import ElasticSampler


class StateHandler(ABC):
    """Knows how to keep one kind of object, in place.

    Args:
        value: the object; it is saved at once.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self.save()

    @abstractmethod
    def save(self) -> None:
        """Copies the object's state in memory."""

    @abstractmethod
    def restore(self) -> None:
        """Gives the object the state that was saved last."""

    @abstractmethod
    def sync(self) -> None:
        """Gives every rank's object rank 0's state, and saves. A collective."""

    def set_value(self, value: Any) -> None:
        """Another object takes the place."""
        self.value = value
        self.save()


class ModelStateHandler(StateHandler):
    """Parameters and buffers of a module."""

    def save(self) -> None:
        self._saved = copy.deepcopy(self.value.state_dict())

    def restore(self) -> None:
        self.value.load_state_dict(self._saved)

    def sync(self) -> None:
        broadcast_parameters(self.value.state_dict(), root_rank=0)
        self.save()


class OptimizerStateHandler(StateHandler):
    """State and options of an optimizer, a distributed one or not."""

    def save(self) -> None:
        self._saved = copy.deepcopy(self.value.state_dict())

    def restore(self) -> None:
        # load_state_dict() takes the tensors as they are: the next step would change what is saved.
        self.value.load_state_dict(copy.deepcopy(self._saved))

    def sync(self) -> None:
        broadcast_optimizer_state(self.value, root_rank=0)
        self.save()


class SamplerStateHandler(StateHandler):
    """An ElasticSampler: what any worker has processed is processed for all."""

    def save(self) -> None:
        self._saved = self.value.state_dict()

    def restore(self) -> None:
        self.value.load_state_dict(self._saved)

    def sync(self) -> None:
        states = allgather_object(self.value.state_dict())
        epoch = states[0]["epoch"]
        processed = [state["processed_indices"] for state in states if state["epoch"] == epoch]
        self.value.load_state_dict({"epoch": epoch, "processed_indices": set().union(*processed)})
        self.save()


_handlers: list[tuple[type, Callable[[Any], StateHandler]]] = [
    (torch.nn.Module, ModelStateHandler),
    (torch.optim.Optimizer, OptimizerStateHandler),
    (ElasticSampler, SamplerStateHandler),
]


def get_handler_registry() -> list[tuple[type, Callable[[Any], StateHandler]]]:
    """Pairs of a type and the handler of its instances; the first that fits is taken."""
    return list(_handlers)


def set_handler_registry(registry: list[tuple[type, Callable[[Any], StateHandler]]]) -> None:
    """Replaces the pairs, for states made from now on."""
    _handlers[:] = registry


class TorchState(ObjectState):
    """What a PyTorch run goes on from. Modules, optimizers and ElasticSamplers keep their identity; other objects are copied.

    With a gossip algorithm each worker saves and restores its own replica; `sync()` gives all workers rank 0's.

    Args:
        model, optimizer: optional; attributes of these names.
        kwargs: more objects, by the attribute's name: further modules, optimizers and samplers, numbers...
    """

    _handlers: dict[str, StateHandler]

    def __init__(
        self, model: torch.nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None, **kwargs: Any
    ) -> None:
        objects = {"model": model, "optimizer": optimizer, **kwargs}
        handlers = {name: _handler_of(value) for name, value in objects.items()}
        self._handlers = {name: handler for name, handler in handlers.items() if handler is not None}
        for name, handler in self._handlers.items():
            object.__setattr__(self, name, handler.value)
        others = {name: value for name, value in objects.items() if name not in self._handlers}
        super().__init__(bcast_object=broadcast_object, get_rank=rank, **others)

    def save(self) -> None:
        for handler in self._handlers.values():
            handler.save()
        super().save()

    def restore(self) -> None:
        for handler in self._handlers.values():
            handler.restore()
        super().restore()

    def sync(self) -> None:
        for handler in self._handlers.values():
            handler.sync()
        super().sync()

    def sync_progress(self) -> None:
        for handler in self._handlers.values():
            if isinstance(handler, SamplerStateHandler):
                handler.sync()

    def __setattr__(self, name: str, value: Any) -> None:
        handlers = self.__dict__.get("_handlers", {})
        if name in handlers and value is not handlers[name].value:
            handlers[name].set_value(value)
        super().__setattr__(name, value)


def _handler_of(value: object) -> StateHandler | None:
    return next((handler(value) for kind, handler in _handlers if isinstance(value, kind)), None)
