"""The one line that says, at init, how this run trains."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Literal, TextIO

DataPath = Literal["CPU", "CUDA-aware", "staged"]
"""How arrays reach MPI: host memory; device memory; device memory by way of pinned host buffers."""

_PATHS: dict[DataPath, str] = {
    "CPU": "CPU",
    "CUDA-aware": "GPU, CUDA-aware MPI",
    "staged": "GPU, staged through pinned host memory",
}


def report_line(
    *,
    algorithm: str,
    ranks: int,
    hosts: int,
    transport: str,
    thread_level: str,
    data_path: DataPath = "CPU",
    topology: str | None = None,
    spectral_gap: float | None = None,
    wire_dtype: str = "parameter",
) -> str:
    """The report as one line without a line end.

    Args:
        algorithm: as in `--algorithm`.
        ranks, hosts: how many take part.
        transport: the MPI's vendor and version, such as "Open MPI 5.0.11".
        thread_level: as in `--mpi-thread-level`: "serialized" or "multiple".
        data_path: how arrays reach MPI.
        topology: its name; None where the algorithm uses none.
        spectral_gap: of the topology's mixing matrices, a round, in [0, 1]; None where it is not defined.
        wire_dtype: as in `--wire-dtype`; "parameter" means as the parameters are stored.

    >>> report_line(algorithm="adpsgd", topology="exponential", spectral_gap=2 / 3, ranks=4, hosts=1,
    ...             transport="Open MPI 5.0.11", thread_level="multiple")
    'hvd-gossip: adpsgd over exponential (spectral gap 0.667) | 4 ranks, 1 host | Open MPI 5.0.11, thread level \
multiple | CPU | wire dtype as parameters'
    """
    parts = (
        _describe_algorithm(algorithm, topology, spectral_gap),
        f"{_count(ranks, 'rank')}, {_count(hosts, 'host')}",
        f"{transport}, thread level {thread_level}",
        _PATHS[data_path],
        "wire dtype " + ("as parameters" if wire_dtype == "parameter" else wire_dtype),
    )
    return "hvd-gossip: " + " | ".join(parts)


def print_report(line: str, rank: int, enabled: bool = True, stream: TextIO | None = None) -> None:
    """Rank 0 writes the line to stderr, whatever the log level; `report=False` (`enabled`) switches it off.

    Args:
        stream: where to; default the `sys.stderr` of now.
    """
    if enabled and rank == 0:
        print(line, file=stream or sys.stderr, flush=True)


def data_path(cuda_aware: bool) -> DataPath:
    """How arrays would reach MPI on this machine: by the CPU where CuPy finds no device."""
    if importlib.util.find_spec("cupy") is None or not importlib.import_module("cupy").cuda.is_available():
        return "CPU"
    return "CUDA-aware" if cuda_aware else "staged"


def _describe_algorithm(algorithm: str, topology: str | None, spectral_gap: float | None) -> str:
    gap = "" if spectral_gap is None else f" (spectral gap {spectral_gap:.3g})"
    return algorithm if topology is None else f"{algorithm} over {topology}{gap}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
