"""RelaySGD on real ranks, where each neighbour is sent something else: the iterates of the paper's equations."""

from __future__ import annotations

import numpy as np

from hvd_gossip.simulate import Still
from hvd_gossip.testing import Run
from hvd_gossip.topology import make_topology
from tests.algorithms.equations import relaysgd_sequential
from tests.mpi import run_ranks

SCRIPT = """
import numpy as np
from hvd_gossip import runtime
from tests.mpi import report

rt = runtime.init(algorithm="relaysgd", topology="binary-tree", mixing_order="sequential")
x = np.random.default_rng(rt.world.rank).standard_normal(3000)
worker = rt.attach([x], chunk_bytes=8192)
for step in range(7):
    worker.step(lambda: None)
own = x[::500].tolist()
with worker.consensus():
    mean = x[::500].tolist()
report([own, mean])
runtime.shutdown()
"""


def test_iterates_on_real_ranks() -> None:
    results = np.array(run_ranks(4, SCRIPT).in_rank_order())
    start = np.stack([np.random.default_rng(rank).standard_normal(3000)[::500] for rank in range(4)])
    expected = relaysgd_sequential(Run(Still(start), make_topology("binary-tree", 4), 7, 0.0, {}))  # type: ignore[arg-type]
    np.testing.assert_allclose(results[:, 0], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(results[:, 1], np.tile(expected.mean(axis=0), (4, 1)), rtol=0, atol=1e-12)
