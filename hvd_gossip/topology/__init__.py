"""Who mixes with whom, and with which weights.

What builds topologies is imported when it is first used: networkx takes a good part of a second to import, which a job
without a topology (allreduce) need not spend on every rank.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hvd_gossip.topology.base import Topology

if TYPE_CHECKING:
    from hvd_gossip.topology.registry import TOPOLOGIES, check_spec, make_topology
    from hvd_gossip.topology.validation import fit_topology, require_needs, require_smallest_eigenvalue

_MODULES = {
    "TOPOLOGIES": "registry",
    "check_spec": "registry",
    "make_topology": "registry",
    "fit_topology": "validation",
    "require_needs": "validation",
    "require_smallest_eigenvalue": "validation",
}

__all__ = [
    "TOPOLOGIES",
    "Topology",
    "check_spec",
    "fit_topology",
    "make_topology",
    "require_needs",
    "require_smallest_eigenvalue",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
