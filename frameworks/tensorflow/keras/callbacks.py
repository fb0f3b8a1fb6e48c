"""Callbacks for `model.fit` (Horovod's classes and arguments), and one that says what gossip does."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np

from hvd_gossip import runtime
from hvd_gossip.basics import ProcessSet, global_process_set, operation_name, process_set_id
from hvd_gossip.collectives import Average, Request

from ..functions import broadcast_variables
from ..model_mean import consensus_distance
from .schedules import LearningRateScheduleCallback as LearningRateScheduleCallback
from .schedules import LearningRateWarmupCallback as LearningRateWarmupCallback


class BroadcastGlobalVariablesCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Gives all ranks the root's model and optimizer after the first batch, when all variables exist: in the first `fit` only.

    Put it before callbacks that save or compare weights.

    Args:
        root_rank: whose variables.
        device: as in Horovod; data cross the boundary of the graph on the host.
    """

    def __init__(self, root_rank: int, device: str = "") -> None:
        super().__init__()
        self.root_rank = root_rank
        self.device = device
        self.broadcast_done = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.broadcast_done:
            return
        # `weights` are without the random generators' states: dropout is to differ between ranks.
        broadcast_variables([*self.model.weights, *self.model.optimizer.variables], self.root_rank)
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
