"""The state of a TensorFlow training run: variables, or a Keras model with its optimizer, and other objects (Horovod's
classes)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip.basics import rank
from hvd_gossip.elastic import ObjectState
from hvd_gossip.objects import broadcast_object

from ..functions import broadcast_variables
from ..variables import bare


class _Variables:
    """Copies of variables in memory.

    Args:
        variables: gives them; there may be more later, when an optimizer is built.
        session: of tf.compat.v1; None eagerly.
    """

    def __init__(self, variables: Callable[[], Sequence[Any]], session: Any = None) -> None:
        self._variables = variables
        self._session = session
        self._saved: list[tuple[Any, Any]] = []

    def save(self) -> None:
        targets = [bare(variable) for variable in self._variables()]
        values = [target.numpy() for target in targets] if self._session is None else self._session.run(targets)
        self._saved = list(zip(targets, values, strict=True))

    def restore(self) -> None:
        for target, value in self._saved:
            if self._session is None:
                target.assign(value)
            else:  # what the variable was made with takes a value, so that the graph does not grow
                self._session.run(target.initializer, {target.initializer.inputs[1]: value})

    def sync(self) -> None:
        """Gives every rank rank 0's values, and saves. A collective."""
        variables = self._variables()
        if self._session is None:
            broadcast_variables(variables, root_rank=0)
        else:
            with self._session.graph.as_default():
                self._session.run(broadcast_variables(variables, root_rank=0))
        self.save()


class TensorFlowState(ObjectState):
    """What a run goes on from: variables, and other objects, which are attributes.

    Args:
        variables: those to keep; default: all global variables of the tf.compat.v1 graph.
        session: whose graph the variables belong to; None for eager variables.
        kwargs: names and first values of more objects.

    Raises:
        ValueError: no variables, and no graph that has any.
    """

    def __init__(self, variables: Iterable[Any] | None = None, session: Any = None, **kwargs: Any) -> None:
        if variables is None:
            if tf.executing_eagerly() and session is None:
                raise ValueError("TensorFlowState needs `variables` where execution is eager")
            graph = tf.compat.v1.get_default_graph() if session is None else session.graph
            variables = graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
        self.variables = list(variables)
        self.session = session
        self._kept = _Variables(lambda: self.variables, session)
        self._kept.save()
        super().__init__(bcast_object=broadcast_object, get_rank=rank, **kwargs)

    def save(self) -> None:
        self._kept.save()
        super().save()

    def restore(self) -> None:
        self._kept.restore()
        super().restore()

    def sync(self) -> None:
        self._kept.sync()
        super().sync()


class TensorFlowKerasState(ObjectState):
    """What a run of Keras 3 goes on from: a model's and an optimizer's variables, and other objects, which are attributes.

    With a gossip algorithm each worker saves and restores its own replica; `sync()` gives all workers rank 0's.

    Args:
        model: built.
        optimizer: default: the one that the model was compiled with, if any. It is built here for the model's variables.
        backend: as in Horovod; not needed here.
        kwargs: names and first values of more objects.
    """

    def __init__(self, model: Any, optimizer: Any = None, backend: Any = None, **kwargs: Any) -> None:
        self.model = model
        self.optimizer = optimizer if optimizer is not None else getattr(model, "optimizer", None)
        if self.optimizer is not None and not getattr(self.optimizer, "built", False):  # tf_keras has no such attribute
            self.optimizer.build(model.trainable_variables)
        self._kept = _Variables(self._all_variables)
        self._kept.save()
        super().__init__(bcast_object=broadcast_object, get_rank=rank, **kwargs)

    def save(self) -> None:
        self._kept.save()
        super().save()

    def restore(self) -> None:
        self._kept.restore()
        super().restore()

    def sync(self) -> None:
        self._kept.sync()
        super().sync()

    def _all_variables(self) -> list[Any]:
        return [*self.model.variables, *([] if self.optimizer is None else self.optimizer.variables)]
