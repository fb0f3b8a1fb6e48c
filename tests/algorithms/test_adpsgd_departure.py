"""AD-PSGD's departures where MPI buffers nothing, not even its tokens."""

import math

import numpy as np
import pytest

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, Still, simulate
from hvd_gossip.transport.simulated_links import Links, exponential


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [2, 5])
def test_both_ends_may_leave_at_once_though_nothing_is_buffered(size: int, seed: int) -> None:
    """The listener does not wait for its own farewell: the other end may be doing the same."""
    values = np.random.default_rng(seed).standard_normal((size, 2))
    report = simulate(
        "adpsgd",
        Still(values.copy()),
        size=size,
        steps=3,
        seed=seed,
        eager_limit=0,
        links=Links(delay=exponential(0.05)),
        compute=ComputeModel(0.05, exponential(1.0), seed=seed),
        settings=MixingSettings(wait_timeout=math.inf),
    )
    assert report.steps.tolist() == [3] * size
    np.testing.assert_allclose(report.mean, values.mean(axis=0), atol=1e-12)
