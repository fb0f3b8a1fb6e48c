"""Every algorithm under the tests that all must pass: the rows of `rows.py`, in the simulator."""

from __future__ import annotations

import numpy as np

from hvd_gossip.algorithms.registry import ALGORITHMS, OWN
from hvd_gossip.testing import Run, conformance_tests
from hvd_gossip.testing.training import RATE, STEPS, problem, simulation
from tests.algorithms.rows import ALLREDUCE, EVERYTHING

globals().update(conformance_tests(EVERYTHING))


def test_every_algorithm_has_a_row() -> None:
    assert {row.algorithm for row in EVERYTHING} >= {kind.name for kind in OWN}
    assert {kind.name for kind in OWN} <= set(ALGORITHMS)


def test_every_synchronous_row_has_its_equations() -> None:
    assert not [str(row) for row in EVERYTHING if row.synchronous and row.iterates is None]


def test_allreduce_s_iterates() -> None:
    """From one start, as Horovod's users broadcast it."""
    start = np.tile(np.random.default_rng(0).standard_normal(6), (4, 1))
    simulated = simulation(ALLREDUCE, problem(4, start), 4)
    assert ALLREDUCE.iterates is not None
    expected = ALLREDUCE.iterates(Run(problem(4, start), simulated.topology, STEPS, RATE, {}))
    np.testing.assert_allclose(simulated.run(steps=STEPS).parameters, expected, rtol=0, atol=ALLREDUCE.tolerance)
