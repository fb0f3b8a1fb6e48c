"""The list that drives every algorithm through the same tests: a new algorithm is one file, one line in the registry, one row.

`hvd_gossip.testing` has the tests, which `tests/algorithms/test_conformance.py` runs for these rows in the simulator;
`tests/torch_frontend` and `tests/tensorflow_frontend` run every algorithm on real ranks.
"""

from __future__ import annotations

from hvd_gossip.testing import Row, random_directed_rounds
from tests.algorithms import equations

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
]
"""All algorithms that mix parameters."""
EVERYTHING = [ALLREDUCE, *ROWS]
