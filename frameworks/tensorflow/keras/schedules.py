"""Learning rates that change while `model.fit` runs: Horovod's callbacks, after Goyal et al., "Accurate, Large Minibatch SGD",
2017."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from hvd_gossip.basics import size

from .optimizer import distributed_of


class LearningRateScheduleCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Sets the learning rate to `initial_lr * multiplier(epoch)` from `start_epoch` on, until `end_epoch`.

    With `staircase` it is set at the beginning of each epoch, else before each batch, `epoch` then being a fraction:
    epoch + batch / steps_per_epoch.

    Args:
        initial_lr: the learning rate that is multiplied.
        multiplier: a number, or a function of the epoch.
        start_epoch: first epoch, from 0.
        end_epoch: first epoch that is left alone; None: there is none.
        staircase: see above; True for a constant multiplier.
        momentum_correction: when the learning rate changes, multiply the velocities of momentum SGD, which contain the old
            one, by new / old (Goyal et al., remark 2). The same as Horovod's, which changes the momentum for one batch; that
            would not reach a function that is compiled already.
        steps_per_epoch: batches an epoch; default: what `fit` knows.

    Raises:
        ValueError: no `initial_lr`. While fitting: batches an epoch are not known; the learning rate cannot be set.
    """

    def __init__(
        self,
        initial_lr: float,
        multiplier: float | Callable[[float], float],
        start_epoch: int = 0,
        end_epoch: int | None = None,
        staircase: bool = True,
        momentum_correction: bool = True,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        if initial_lr is None:
            raise ValueError("Parameter `initial_lr` is required")
        self.initial_lr = initial_lr
        self.start_epoch = start_epoch
        self.end_epoch = end_epoch
        self.momentum_correction = momentum_correction
        self.steps_per_epoch = steps_per_epoch
        self.current_epoch = 0
        self.multiplier: Callable[[float], float]
        if callable(multiplier):
            self.staircase, self.multiplier = staircase, multiplier
        else:
            constant = float(multiplier)
            self.staircase, self.multiplier = True, lambda epoch: constant

    def on_train_begin(self, logs: Any = None) -> None:
        if not self.staircase and not self.steps_per_epoch:
            self.steps_per_epoch = self.params.get("steps")
            if not self.steps_per_epoch:
                raise ValueError(
                    f"Could not autodetect the number of steps per epoch. Please specify the steps_per_epoch parameter to "
                    f"the {type(self).__name__}()."
                )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.current_epoch = epoch
        if self.staircase:
            self._adjust(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self.staircase:
            assert self.steps_per_epoch
            self._adjust(self.current_epoch + batch / self.steps_per_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["lr"] = float(self.model.optimizer.learning_rate)

    def _adjust(self, epoch: float) -> None:
        if self.current_epoch < self.start_epoch or (
            self.end_epoch is not None and self.current_epoch >= self.end_epoch
        ):
            return
        optimizer = self.model.optimizer
        old, new = float(optimizer.learning_rate), self.initial_lr * self.multiplier(epoch)
        if old == new:
            return
        optimizer.learning_rate = new
        if self.momentum_correction and old:
            _scale_velocities(optimizer, new / old)


class LearningRateWarmupCallback(LearningRateScheduleCallback):
    """Raises the learning rate from `initial_lr / size()`, that of one worker, to `initial_lr`, in equal steps a batch.

    Args:
        initial_lr: the learning rate after the warm-up, scaled for all workers.
        warmup_epochs: how many epochs that takes.
        momentum_correction, steps_per_epoch: see `LearningRateScheduleCallback`.
        verbose: 1 says when the warm-up is complete.
    """

    def __init__(
        self,
        initial_lr: float,
        warmup_epochs: int = 5,
        momentum_correction: bool = True,
        steps_per_epoch: int | None = None,
        verbose: int = 0,
    ) -> None:
        def multiplier(epoch: float) -> float:
            assert self.steps_per_epoch
            epoch += 1.0 / self.steps_per_epoch  # so that an epoch ends with a round number
            return (epoch * (size() - 1) / warmup_epochs + 1) / size()

        super().__init__(
            initial_lr,
            multiplier,
            start_epoch=0,
            end_epoch=warmup_epochs,
            staircase=False,
            momentum_correction=momentum_correction,
            steps_per_epoch=steps_per_epoch,
        )
        self.verbose = verbose

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.end_epoch is not None and epoch == self.end_epoch - 1 and self.verbose > 0:
            rate = float(self.model.optimizer.learning_rate)
            print(f"\nEpoch {epoch + 1}: finished gradual learning rate warmup to {rate:g}.")


def _scale_velocities(optimizer: Any, factor: float) -> None:
    """Multiplies the velocities of a momentum SGD, if there are any yet; of another optimizer nothing depends on the rate."""
    distributed = distributed_of(optimizer)
    plain = optimizer if distributed is None else distributed.inner_optimizer
    if isinstance(plain, keras.optimizers.SGD) and plain.momentum and plain.built:
        for velocity in plain.momentums:
            velocity.assign(velocity * factor)
