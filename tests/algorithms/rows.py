"""The list that drives every algorithm through the same tests: a new algorithm is one file, one line in the registry, one row.

`hvd_gossip.testing` has the tests, which `tests/algorithms/test_conformance.py` runs for these rows in the simulator;
`tests/torch_frontend` and `tests/tensorflow_frontend` run every algorithm on real ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hvd_gossip.testing import Row, random_directed_rounds, random_tree
from tests.algorithms import equations, equations_outer, equations_skewed

OVERLAP, SEQUENTIAL = {"mixing_order": "overlap"}, {"mixing_order": "sequential"}


def choco(compressor: str, consensus_step: float, more: Mapping[str, Any] = OVERLAP, variant: bool = True) -> Row:
    """A row of ChocoSGD."""
    iterates = equations.choco_sequential if more == SEQUENTIAL else equations.choco_overlap
    settings = {"compressor": compressor, "consensus_step": consensus_step, **more}
    return Row("choco", settings, iterates=iterates, variant=variant)


def relaysgd(settings: Mapping[str, Any]) -> Row:
    """A row of RelaySGD."""
    iterates = equations.relaysgd_sequential if settings == SEQUENTIAL else equations.relaysgd_overlap
    return Row(
        "relaysgd",
        settings,
        topologies=("auto", "chain", "star"),
        random_topology=random_tree,
        iterates=iterates,
        steps=300,  # what is on its way has a share in every update: the mean moves by less
        keeps_mass=False,
        comes_to_consensus=False,
        variant=settings != OVERLAP,
    )


ALLREDUCE = Row("allreduce", iterates=equations.allreduce)
ROWS = [
    Row("dpsgd", OVERLAP, iterates=equations.dpsgd_overlap),
    Row("dpsgd", SEQUENTIAL, iterates=equations.dpsgd_sequential),
    Row("dpsgd", {"mixing_period": 3}, iterates=equations.dpsgd_overlap, variant=True),
    Row("dpsgd", {"global_average_every": 4}, iterates=equations.dpsgd_overlap, variant=True),
    Row("adpsgd"),
    Row("acid"),
    Row("sgp", OVERLAP, random_topology=random_directed_rounds, iterates=equations.sgp_overlap),
    Row("sgp", SEQUENTIAL, random_topology=random_directed_rounds, iterates=equations.sgp_sequential, variant=True),
    Row(
        "sgp",
        {"mixing_period": 3},
        random_topology=random_directed_rounds,
        iterates=equations.sgp_overlap,
        variant=True,
    ),
    Row("sgp", {"global_average_every": 4}, random_topology=random_directed_rounds, iterates=equations.sgp_overlap),
    Row("osgp", {"tau": 2}, random_topology=random_directed_rounds, iterates=equations.osgp),
    Row(
        "osgp",
        {"tau": 3, "mixing_period": 2},
        random_topology=random_directed_rounds,
        iterates=equations.osgp,
        variant=True,
    ),
    Row("agp", random_topology=random_directed_rounds),
    Row("asgd", keeps_mass=False, comes_to_consensus=False),
    Row("asgd", {"mixing_order": "overlap"}, keeps_mass=False, comes_to_consensus=False, variant=True),
    Row("asysg-incon", keeps_mass=False, comes_to_consensus=False),
    Row("d2", iterates=equations_skewed.d2),
    Row("gradient-tracking", iterates=equations_skewed.gradient_tracking),
    Row("qg-dsgdm", iterates=equations_skewed.qg_dsgdm, keeps_mass=False, is_wrapped_alone=False),
    Row("local", iterates=equations_outer.local, heals=True),
    Row(
        "dpsgd",
        {"outer": "nesterov", "outer_every": 4},
        topologies=("ring", "complete"),
        iterates=equations_outer.over_dpsgd,
        keeps_mass=False,
        is_wrapped_alone=False,
        heals=True,
    ),
    Row(
        "adpsgd",
        {"outer": "slowmo", "outer_every": 3},
        keeps_mass=False,
        is_wrapped_alone=False,
        heals=True,
        variant=True,
    ),
    choco("top-k", 0.5, variant=False),
    choco("sign", 0.5, SEQUENTIAL),
    choco("random-k", 0.6, {"mixing_period": 2}),
    relaysgd(OVERLAP),
    relaysgd(SEQUENTIAL),
    relaysgd({"mixing_period": 2}),
]
"""All algorithms that mix parameters."""
EVERYTHING = [ALLREDUCE, *ROWS]
