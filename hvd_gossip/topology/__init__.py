"""Who mixes with whom, and with which weights."""

from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.registry import TOPOLOGIES, check_spec, make_topology
from hvd_gossip.topology.validation import fit_topology, require_needs, require_smallest_eigenvalue

__all__ = [
    "TOPOLOGIES",
    "Topology",
    "check_spec",
    "fit_topology",
    "make_topology",
    "require_needs",
    "require_smallest_eigenvalue",
]
