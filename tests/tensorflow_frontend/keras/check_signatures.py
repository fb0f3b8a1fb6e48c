"""Checks of the documented signatures of horovod.tensorflow.keras and horovod.keras 0.28.1 (horovod.readthedocs.io, "API")."""

from __future__ import annotations

import inspect

import hvd_gossip.tensorflow.keras as hvd

from tests.tensorflow_frontend.check_signatures import BASICS, MEMBERS, PLACED, SCALED, signature_of

OPTIMIZER = (
    f"optimizer, name=None, {PLACED}, sparse_as_dense=False, gradient_predivide_factor=1.0, op=Average, "
    "backward_passes_per_step=1, average_aggregated_gradients=False"
)
RATES = "momentum_correction=True, steps_per_epoch=None"
DOCUMENTED = {
    "shutdown": "",
    "is_initialized": "",
    "start_timeline": "file_path, mark_cycles=False",
    "stop_timeline": "",
    **dict.fromkeys(BASICS, ""),
    "add_process_set": "process_set",
    "remove_process_set": "process_set",
    "broadcast_global_variables": "root_rank",
    "allreduce": f"value, name=None, average=None, {SCALED}, op=None, compression=Compression.none",
    "allgather": "value, name=None",
    "broadcast": "value, root_rank, name=None",
    "reducescatter": "value, name=None, op=Average",
    "load_model": "filepath, custom_optimizers=None, custom_objects=None, compression=Compression.none, legacy_opts=False",
    "callbacks.MetricAverageCallback": f"device='', {MEMBERS}",
    "callbacks.BroadcastGlobalVariablesCallback": "root_rank, device='', local_variables=None",
    "callbacks.LearningRateScheduleCallback": (
        f"initial_lr, multiplier, start_epoch=0, end_epoch=None, staircase=True, {RATES}"
    ),
    "callbacks.LearningRateWarmupCallback": f"initial_lr, warmup_epochs=5, {RATES}, verbose=0",
    "callbacks.BestModelCheckpoint": (
        "monitor='val_loss', verbose=0, save_weights_only=False, mode='auto', save_freq='epoch'"
    ),
    "elastic.run": "func",
    "elastic.KerasState": "model, optimizer=None, **kwargs",
    "elastic.CommitStateCallback": "state, batches_per_commit=1",
    "elastic.UpdateBatchStateCallback": "state",
    "elastic.UpdateEpochStateCallback": "state",
}
EXTENDED = {
    "init": "comm=None, process_sets=None",
    "DistributedOptimizer": f"{OPTIMIZER}, num_groups=0, groups=None, {MEMBERS}, scale_local_gradients=True",
    "PartialDistributedOptimizer": f"{OPTIMIZER}, groups=None, {MEMBERS}, local_layers=None, scale_local_gradients=True",
}
"""These have further arguments of ours, all of which can be left out."""
OTHERS = "Compression ProcessSet global_process_set Average Sum Adasum Min Max Product"


def found(name: str) -> object:
    """What the package has under a name with dots."""
    value: object = hvd
    for part in name.split("."):
        value = getattr(value, part)
    return value


def check_signatures() -> None:
    for name, text in DOCUMENTED.items():
        assert ", ".join(signature_of(found(name))) == text, name
    for name, text in EXTENDED.items():
        ours, documented = signature_of(found(name)), text.split(", ")
        assert ours[: len(documented)] == documented, name
        assert all("=" in one or one.startswith("**") for one in ours[len(documented) :]), name


def check_nothing_documented_is_missing_or_undocumented() -> None:
    assert set(OTHERS.split()) <= set(dir(hvd))
    assert [name for name in (*DOCUMENTED, *EXTENDED) if not inspect.getdoc(found(name))] == []
