"""The list that drives every algorithm through the same tests: a new algorithm is one file, one line in the registry, one row.

`hvd_gossip.testing` has the tests, which `tests/algorithms/test_conformance.py` runs for these rows in the simulator;
`tests/torch_frontend` and `tests/tensorflow_frontend` run every algorithm on real ranks.
"""

from __future__ import annotations

from hvd_gossip.testing import Row, random_directed_rounds
from tests.algorithms import equations, equations_outer, equations_skewed

OVERLAP, SEQUENTIAL = {"mixing_order": "overlap"}, {"mixing_order": "sequential"}
ALLREDUCE = Row("allreduce", iterates=equations.allreduce)
ROWS = [
    Row("dpsgd", OVERLAP, iterates=equations.dpsgd_overlap),
    Row("dpsgd", SEQUENTIAL, iterates=equations.dpsgd_sequential),
    Row("dpsgd", {"mixing_period": 3}, iterates=equations.dpsgd_overlap),
    Row("dpsgd", {"global_average_every": 4}, iterates=equations.dpsgd_overlap),
    Row("adpsgd"),
    Row("acid"),
    Row("sgp", OVERLAP, random_topology=random_directed_rounds, iterates=equations.sgp_overlap),
    Row("sgp", SEQUENTIAL, random_topology=random_directed_rounds, iterates=equations.sgp_sequential),
    Row("sgp", {"mixing_period": 3}, random_topology=random_directed_rounds, iterates=equations.sgp_overlap),
    Row("sgp", {"global_average_every": 4}, random_topology=random_directed_rounds, iterates=equations.sgp_overlap),
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
    Row("adpsgd", {"outer": "slowmo", "outer_every": 3}, keeps_mass=False, is_wrapped_alone=False, heals=True),
]
"""All algorithms that mix parameters."""
EVERYTHING = [ALLREDUCE, *ROWS]
