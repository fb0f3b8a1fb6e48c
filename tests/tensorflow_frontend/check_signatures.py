"""Checks of the documented signatures of horovod.tensorflow 0.28.1 (horovod.readthedocs.io, "API", horovod.tensorflow)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import hvd_gossip.tensorflow as hvd

PLACED = "device_dense='', device_sparse='', compression=Compression.none"
SCALED = "prescale_factor=1.0, postscale_factor=1.0"
MEMBERS = "process_set=global_process_set"
TAPE = (
    f"gradtape, {PLACED}, sparse_as_dense=False, op=Average, gradient_predivide_factor=1.0, num_groups=0, groups=None, "
    f"{MEMBERS}"
)
BASICS = (
    "size", "local_size", "cross_size", "rank", "local_rank", "cross_rank", "is_homogeneous", "mpi_threads_supported",
    "mpi_enabled", "mpi_built", "gloo_enabled", "gloo_built", "nccl_built", "ddl_built", "ccl_built", "cuda_built",
    "rocm_built",
)  # fmt: skip
DOCUMENTED = {
    "shutdown": "",
    "is_initialized": "",
    "start_timeline": "file_path, mark_cycles=False",
    "stop_timeline": "",
    **dict.fromkeys(BASICS, ""),
    "size_op": "process_set_id=0, name=None",
    "process_set_included_op": "process_set_id=0, name=None",
    "rank_op": "name=None",
    "local_rank_op": "name=None",
    "local_size_op": "name=None",
    "allreduce": f"tensor, average=None, {PLACED}, op=None, {SCALED}, name=None, {MEMBERS}, ignore_name_scope=False",
    "grouped_allreduce": (
        f"tensors, average=None, {PLACED}, op=None, {SCALED}, {MEMBERS}, ignore_name_scope=False, name=None"
    ),
    "allgather": f"tensor, name=None, ignore_name_scope=False, {MEMBERS}",
    "grouped_allgather": f"tensors, name=None, ignore_name_scope=False, {MEMBERS}",
    "broadcast": f"tensor, root_rank, name=None, ignore_name_scope=False, {MEMBERS}",
    "broadcast_": f"variables, root_rank, name=None, {MEMBERS}",
    "alltoall": f"tensor, splits=None, name=None, ignore_name_scope=False, {MEMBERS}",
    "join": "",
    "broadcast_variables": f"variables, root_rank, {MEMBERS}, inplace=False",
    "broadcast_global_variables": "root_rank",
    "BroadcastGlobalVariablesHook": "root_rank, device=''",
    "broadcast_object": f"obj, root_rank=0, session=None, name=None, {MEMBERS}",
    "broadcast_object_fn": f"root_rank=0, session=None, name=None, {MEMBERS}",
    "allgather_object": f"obj, session=None, name=None, {MEMBERS}",
    "add_process_set": "process_set",
    "remove_process_set": "process_set",
    "ProcessSet": "ranks_or_comm",
    "DistributedGradientTape": f"{TAPE}, scale_local_gradients=True",
    "PartialDistributedGradientTape": f"{TAPE}, local_layers=None, scale_local_gradients=True",
}
SCATTER = "device_dense='', compression=Compression.none, op=Average"
EXTENDED = {
    "init": "comm=None, process_sets=None",
    "barrier": MEMBERS,
    "reducescatter": f"tensor, {SCATTER}, name=None, {MEMBERS}, {SCALED}",
    "grouped_reducescatter": f"tensors, {SCATTER}, {MEMBERS}, {SCALED}",
    "DistributedOptimizer": (
        f"optimizer, name=None, use_locking=False, {PLACED}, sparse_as_dense=False, backward_passes_per_step=1, op=Average, "
        f"gradient_predivide_factor=1.0, average_aggregated_gradients=False, num_groups=0, groups=None, {MEMBERS}, "
        "scale_local_gradients=True"
    ),
}
"""These have further arguments of ours, all of which can be left out."""
OTHERS = "Compression HorovodInternalError SyncBatchNormalization elastic global_process_set Average Sum Adasum Min Max Product"


def signature_of(function: Callable[..., Any]) -> list[str]:
    """The parameters as the documentation writes them."""
    return [_text(parameter) for parameter in inspect.signature(function).parameters.values()]


def _text(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return ("**" if parameter.kind is inspect.Parameter.VAR_KEYWORD else "") + parameter.name
    known = {id(hvd.global_process_set): "global_process_set", id(hvd.Compression.none): "Compression.none"}
    text = "Average" if default is hvd.Average else known.get(id(default), repr(default))
    return f"{parameter.name}={text}"


def check_signatures() -> None:
    for name, documented in DOCUMENTED.items():
        assert ", ".join(signature_of(getattr(hvd, name))) == documented, name


def check_signatures_with_arguments_of_ours_after_them() -> None:
    for name, text in EXTENDED.items():
        ours, documented = signature_of(getattr(hvd, name)), text.split(", ")
        assert ours[: len(documented)] == documented, name
        assert all("=" in one or one.startswith("**") for one in ours[len(documented) :]), name


def check_nothing_documented_is_missing_or_undocumented() -> None:
    assert {*DOCUMENTED, *EXTENDED, *OTHERS.split()} <= set(dir(hvd))
    assert [name for name in (*DOCUMENTED, *EXTENDED) if not inspect.getdoc(getattr(hvd, name))] == []
    values = {"Average": 0, "Sum": 1, "Adasum": 2, "Min": 3, "Max": 4, "Product": 5}
    assert {name: int(getattr(hvd, name)) for name in values} == values


def check_modules_of_operations() -> None:
    assert hvd.mpi_ops.allreduce is hvd.allreduce
    assert hvd.mpi_ops.Adasum is hvd.Adasum
