"""The documented signatures of horovod.torch 0.28.1 (horovod.readthedocs.io, "API", horovod.torch), compared with ours."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import hvd_gossip.torch as hvd
import pytest

from hvd_gossip.compat import SHADOW
from tests.mpi import ROOT

REDUCTION = (
    "average=None, name=None, op=None, prescale_factor=1.0, postscale_factor=1.0, process_set=global_process_set"
)
COMPRESSED = (
    "average=None, name=None, compression=Compression.none, op=None, prescale_factor=1.0, postscale_factor=1.0, "
    "process_set=global_process_set"
)
SCATTERED = "op=Average, process_set=global_process_set, prescale_factor=1.0, postscale_factor=1.0"
DOCUMENTED = {
    "shutdown": "",
    "is_initialized": "",
    "size": "",
    "local_size": "",
    "cross_size": "",
    "rank": "",
    "local_rank": "",
    "cross_rank": "",
    "is_homogeneous": "",
    "mpi_threads_supported": "",
    "mpi_enabled": "",
    "mpi_built": "",
    "gloo_enabled": "",
    "gloo_built": "",
    "nccl_built": "",
    "ddl_built": "",
    "ccl_built": "",
    "cuda_built": "",
    "rocm_built": "",
    "start_timeline": "file_path, mark_cycles=False",
    "stop_timeline": "",
    "allreduce": f"tensor, {COMPRESSED}",
    "allreduce_async": f"tensor, {REDUCTION}",
    "allreduce_": f"tensor, {REDUCTION}",
    "allreduce_async_": f"tensor, {REDUCTION}",
    "grouped_allreduce": f"tensors, {COMPRESSED}",
    "grouped_allreduce_async": f"tensors, {REDUCTION}",
    "grouped_allreduce_": f"tensors, {REDUCTION}",
    "grouped_allreduce_async_": f"tensors, {REDUCTION}",
    "sparse_allreduce_async": "tensor, name, op, process_set=global_process_set",
    "allgather": "tensor, name=None, process_set=global_process_set",
    "allgather_async": "tensor, name=None, process_set=global_process_set",
    "grouped_allgather": "tensors, name=None, process_set=global_process_set",
    "grouped_allgather_async": "tensors, name=None, process_set=global_process_set",
    "broadcast": "tensor, root_rank, name=None, process_set=global_process_set",
    "broadcast_async": "tensor, root_rank, name=None, process_set=global_process_set",
    "broadcast_": "tensor, root_rank, name=None, process_set=global_process_set",
    "broadcast_async_": "tensor, root_rank, name=None, process_set=global_process_set",
    "alltoall": "tensor, splits=None, name=None, process_set=global_process_set",
    "alltoall_async": "tensor, splits=None, name=None, process_set=global_process_set",
    "reducescatter": f"tensor, name=None, compression=Compression.none, {SCATTERED}",
    "reducescatter_async": f"tensor, name=None, {SCATTERED}",
    "grouped_reducescatter": f"tensors, name=None, compression=Compression.none, {SCATTERED}",
    "grouped_reducescatter_async": f"tensors, name=None, {SCATTERED}",
    "join": "device=-1",
    "barrier": "process_set=global_process_set",
    "poll": "handle",
    "synchronize": "handle",
    "broadcast_object": "obj, root_rank=0, name=None, process_set=global_process_set",
    "allgather_object": "obj, name=None, process_set=global_process_set",
    "broadcast_parameters": "params, root_rank",
    "broadcast_optimizer_state": "optimizer, root_rank, model=None",
    "add_process_set": "process_set",
    "remove_process_set": "process_set",
    "ProcessSet": "ranks_or_comm",
}
EXTENDED = {
    "init": "comm=None, process_sets=None",
    "DistributedOptimizer": (
        "optimizer, named_parameters=None, compression=Compression.none, backward_passes_per_step=1, op=Average, "
        "gradient_predivide_factor=1.0, num_groups=0, groups=None, sparse_as_dense=False, process_set=global_process_set"
    ),
    "SyncBatchNorm": "num_features, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True",
}
"""These have further arguments of ours, all of which can be left out."""
VALUES = {"Average": 0, "Sum": 1, "Adasum": 2, "Min": 3, "Max": 4, "Product": 5}
OTHERS = ("Compression", "HorovodInternalError", "elastic", "global_process_set")


def signature_of(name: str) -> list[str]:
    """The parameters as the documentation writes them."""
    return [_text(parameter) for parameter in inspect.signature(getattr(hvd, name)).parameters.values()]


def _text(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is inspect.Parameter.empty:
        stars = {inspect._ParameterKind.VAR_POSITIONAL: "*", inspect._ParameterKind.VAR_KEYWORD: "**"}
        return stars.get(parameter.kind, "") + parameter.name
    if default is hvd.global_process_set:
        return f"{parameter.name}=global_process_set"
    if default is hvd.Compression.none:
        return f"{parameter.name}=Compression.none"
    if default is hvd.Average:
        return f"{parameter.name}=Average"
    return f"{parameter.name}={default!r}"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_signature(name: str) -> None:
    assert ", ".join(signature_of(name)) == DOCUMENTED[name]


@pytest.mark.parametrize("name", EXTENDED)
def test_signature_with_arguments_of_ours_after_it(name: str) -> None:
    ours = signature_of(name)
    documented = EXTENDED[name].split(", ")
    assert ours[: len(documented)] == documented
    assert all("=" in parameter or parameter.startswith("**") for parameter in ours[len(documented) :])


def test_values_of_reductions() -> None:
    assert {name: int(getattr(hvd, name)) for name in VALUES} == VALUES


def test_nothing_documented_is_missing() -> None:
    names = {*DOCUMENTED, *EXTENDED, *VALUES, *OTHERS}
    assert names <= set(dir(hvd))


def test_every_function_says_what_it_does() -> None:
    undocumented = [name for name in (*DOCUMENTED, *EXTENDED) if not inspect.getdoc(getattr(hvd, name))]
    assert undocumented == []


def test_horovods_names_are_the_same_objects() -> None:
    names = [*DOCUMENTED, *EXTENDED, *VALUES, *OTHERS]
    code = f"""
import horovod.torch, hvd_gossip.torch
from horovod.torch import mpi_ops
names = {names}
different = [name for name in names if getattr(horovod.torch, name) is not getattr(hvd_gossip.torch, name)]
assert not different, different
assert mpi_ops is horovod.torch.mpi_ops
assert mpi_ops.allreduce_async_ is horovod.torch.allreduce_async_
assert mpi_ops.Adasum is horovod.torch.Adasum
import horovod.torch.elastic
from horovod.torch.optimizer import DistributedOptimizer
from horovod.torch.functions import allgather_object, broadcast_object, broadcast_optimizer_state, broadcast_parameters
from horovod.torch.sync_batch_norm import SyncBatchNorm
from horovod.torch.compression import Compression
"""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([SHADOW, str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
