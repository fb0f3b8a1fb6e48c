"""From what the user says to a topology."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.setting import did_you_mean
from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.files import READERS, read_topology
from hvd_gossip.topology.given import from_graph, from_matrices
from hvd_gossip.topology.named import NAMED, Options
from hvd_gossip.topology.weights import check_weights

TOPOLOGIES: Mapping[str, str] = {name: named.description for name, named in NAMED.items()}
"""Name -> one line, for help and documentation."""


def make_topology(
    spec: Any,
    size: int,
    *,
    seed: int = 0,
    weights: str = "metropolis",
    laziness: float = 0.0,
    hosts: Sequence[int] | None = None,
) -> Topology:
    """Builds a topology; equal arguments give equal matrices on every rank, without communication.

    Args:
        spec: a name in `TOPOLOGIES`; the path of a file (`files.read_topology` says which); a networkx Graph or DiGraph
            over the ranks; a square array-like W (row i: what rank i takes); a list of such, one a round; or a Topology.
        size: number of workers, at least 1. Every name takes any size except hypercube (powers of two).
        seed: seeds random topologies; 0 or more.
        weights: for undirected graphs without weights of their own: "metropolis" or "uniform".
        laziness: l in [0, 1): W becomes (1 - l) W + l I.
        hosts: index of each rank's host, for `hierarchical`.

    Raises:
        ConfigError: an argument is not valid, an unknown name among them (the message lists the valid ones).
        TopologyError: the graph or the matrix cannot be a topology of this size.
    """
    _check(size, seed, weights, laziness, hosts)
    if isinstance(spec, Topology):
        return _own(spec, size, laziness)
    if isinstance(spec, (str, os.PathLike)):
        text = os.fspath(spec)
        if text in NAMED:
            return NAMED[text].build(size, Options(seed, weights, laziness, hosts))
        check_spec(text)
        return _given(read_topology(Path(text)), size, text, weights, laziness)
    return _given(spec, size, "graph" if isinstance(spec, nx.Graph) else "matrix", weights, laziness)


def check_spec(spec: str) -> None:
    """Checks a name or path before any topology can be built (the number of workers need not be known).

    Raises:
        ConfigError: it is neither a name in `TOPOLOGIES` nor the path of a file of a known kind.
    """
    if spec in NAMED or Path(spec).is_file() or Path(spec).suffix.lower() in READERS:
        return
    raise ConfigError(
        f"topology {spec!r} is unknown.{did_you_mean(spec, NAMED)} Valid: {', '.join(NAMED)}; or the path of a file "
        f"({', '.join(READERS)})"
    )


def _given(spec: Any, size: int, name: str, weights: str, laziness: float) -> Topology:
    if isinstance(spec, nx.Graph):
        return from_graph(spec, size, name=name, weights=weights, laziness=laziness)
    if isinstance(spec, (np.ndarray, Sequence)):
        return from_matrices(spec, size, name=name, laziness=laziness)
    raise ConfigError(
        f"a topology is a name, a path, a networkx graph, a matrix, a list of matrices or a Topology, not {spec!r}"
    )


def _own(topology: Topology, size: int, laziness: float) -> Topology:
    if topology.size != size:
        raise TopologyError(f"topology {topology.name!r} is for {topology.size} workers, but there are {size}")
    if laziness:
        raise ConfigError(
            f"laziness {laziness} cannot be added to a Topology object; build {topology.name!r} with it instead"
        )
    return topology


def _check(size: int, seed: int, weights: str, laziness: float, hosts: Sequence[int] | None) -> None:
    if size < 1:
        raise ConfigError(f"a topology needs at least 1 worker, not {size}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, not {seed}")
    if not 0.0 <= laziness < 1.0:
        raise ConfigError(f"laziness must be at least 0 and below 1, not {laziness}")
    if hosts is not None and len(hosts) != size:
        raise ConfigError(f"hosts names the hosts of {len(hosts)} ranks, but there are {size} workers")
    check_weights(weights)
