"""Callbacks for `model.fit` (Horovod's classes and arguments), and one that says what gossip does."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.basics import ProcessSet, global_process_set, operation_name, process_set_id
from hvd_gossip.collectives import Average, Request

from ..functions import broadcast_variables
from ..model_mean import consensus_distance
from ..variables import bare
from .schedules import LearningRateScheduleCallback as LearningRateScheduleCallback
from .schedules import LearningRateWarmupCallback as LearningRateWarmupCallback


class BroadcastGlobalVariablesCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Gives all ranks the root's model and optimizer after the first batch, when all variables exist: in the first `fit` only.

    Put it before callbacks that save or compare weights.

    Args:
        root_rank: whose variables.
        device: as in Horovod; data cross the boundary of the graph on the host.
        local_variables: a variable, or several, that each worker keeps as they are.

    Raises:
        ValueError: among `local_variables` is something else than variables.
    """

    def __init__(self, root_rank: int, device: str = "", local_variables: Any = None) -> None:
        super().__init__()
        given = [] if local_variables is None else local_variables
        self.root_rank = root_rank
        self.device = device
        self.local_variables: list[Any] = []
        self.broadcast_done = False
        for variable in given if isinstance(given, (list, tuple, set)) else [given]:
            self.register_local_var(variable)

    def register_local_var(self, var: Any) -> None:
        """Each worker keeps this variable as it is. Raises ValueError for something else than a variable."""
        if not isinstance(bare(var), tf.Variable):
            raise ValueError(f"All local variables must be tf.Variable or keras.Variable, not {type(var).__name__}")
        self.local_variables.append(var)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.broadcast_done:
            return
        # `weights` are without the random generators' states: dropout is to differ between ranks.
        everything = [*self.model.weights, *self.model.optimizer.variables]
        local = {id(bare(variable)) for variable in self.local_variables}
        broadcast_variables([one for one in everything if id(bare(one)) not in local], self.root_rank)
        self.broadcast_done = True


class MetricAverageCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Replaces the metrics of an epoch by their averages over the ranks. Put it before callbacks that use them.

    All ranks have the same metrics and run the same number of epochs.

    Args:
        device: as in Horovod; the averages are made on the host.
        process_set: the ranks that take part.
    """

    def __init__(self, device: str = "", process_set: ProcessSet = global_process_set) -> None:
        super().__init__()
        self.device = device
        self.process_set = process_set

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not logs:
            return
        names = sorted(logs)
        means = self._average(np.array([float(logs[name]) for name in names]), names)
        logs.update(zip(names, means.tolist(), strict=True))

    def _average(self, values: Any, names: list[str]) -> Any:
        members = process_set_id(self.process_set)
        name = operation_name("allreduce", f"MetricAverageCallback/{','.join(names)}", members)
        request = Request(name, "allreduce", values, Average, output=values, process_set=members)
        runtime.current().submit(request).wait()
        return values


class BestModelCheckpoint(keras.callbacks.ModelCheckpoint):  # type: ignore[misc]
    """Keeps the best model in a file, `filepath`, that is set after construction (Horovod's class; its Spark estimator sets it).

        best = hvd.callbacks.BestModelCheckpoint(monitor="val_accuracy")
        best.filepath = "best.keras"

    Rank 0 alone should have it; with gossip it keeps rank 0's own model.

    Args:
        monitor, verbose, save_weights_only, mode, save_freq: as of `keras.callbacks.ModelCheckpoint`.

    Raises:
        ValueError: while fitting, if `filepath` has not been set.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
    ) -> None:
        unused = "unset.weights.h5" if save_weights_only else "unset.keras"  # Keras 3 wants a name at once
        super().__init__(unused, monitor, verbose, True, save_weights_only, mode, save_freq)
        self.filepath: str | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        if self.filepath is None:
            raise ValueError("BestModelCheckpoint has no `filepath` to keep the model in: set it before fit()")
        super().on_train_begin(logs)


class ConsensusCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds to the logs of each epoch `consensus_distance`, how far apart the workers' models are, and `waited`, the part of the
    epoch's time in which this worker waited for others. (Not in Horovod.)

    A collective: all ranks run the same number of epochs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._began = (0.0, 0.0)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = self._now()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        (began, waited), (now, total) = self._began, self._now()
        if logs is not None:
            logs["waited"] = (total - waited) / (now - began)
            logs["consensus_distance"] = consensus_distance(self.model)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), runtime.current().engine.waited
