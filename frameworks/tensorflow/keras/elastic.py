"""Elastic training with Keras 3: Horovod's `horovod.tensorflow.keras.elastic`.

@hvd.elastic.run
def train(state):
    callbacks = [UpdateEpochStateCallback(state), CommitStateCallback(state, batches_per_commit=100)]
    model.fit(dataset, epochs=epochs - state.epoch, callbacks=callbacks)

state = hvd.elastic.KerasState(model, epoch=0)
train(state)
"""

from __future__ import annotations

from typing import Any

import keras

from ..elastic import TensorFlowKerasState
from ..elastic import run as run


class KerasState(TensorFlowKerasState):
    """What a run of Keras goes on from: a model and its optimizer, and other objects, which are attributes.

    Args:
        model: built and compiled.
        optimizer: default: the model's.
        kwargs: names and first values of more objects.
    """

    def __init__(self, model: Any, optimizer: Any = None, **kwargs: Any) -> None:
        super().__init__(model, optimizer, **kwargs)


class CommitStateCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Commits the state every so many batches, and at the end of each epoch. Put it after callbacks that change the state.

    Args:
        state: see `KerasState`.
        batches_per_commit: batches between two commits.
    """

    def __init__(self, state: Any, batches_per_commit: int = 1) -> None:
        super().__init__()
        self.state = state
        self.batches_per_commit = batches_per_commit
        self.batches_remaining = batches_per_commit

    def on_train_begin(self, logs: Any = None) -> None:
        self.batches_remaining = self.batches_per_commit

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches_remaining -= 1
        if self.batches_remaining == 0:
            self.commit()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.commit()

    def commit(self) -> None:
        """Commits, and counts from here."""
        self.state.commit()
        self.batches_remaining = self.batches_per_commit


class UpdateBatchStateCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps `state.batch`, the batch of the epoch that was trained last; 0 between epochs.

    To go on in the middle of an epoch after a reset, call `fit` with `steps_per_epoch` less `state.batch` for that epoch: a
    callback of Keras 3 cannot shorten it.

    Args:
        state: with an attribute `batch`.
    """

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.state = state

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.state.batch = batch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.state.batch = 0


class UpdateEpochStateCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps `state.epoch`: how many epochs are done, over resets, each `fit` beginning to count at 0.

    Args:
        state: with an attribute `epoch`.
    """

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.state = state
        self.initial_epoch = state.epoch

    def on_train_begin(self, logs: Any = None) -> None:
        self.initial_epoch = self.state.epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.state.epoch = self.initial_epoch + epoch + 1
