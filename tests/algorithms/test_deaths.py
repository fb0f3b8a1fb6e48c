"""Workers that die without a word: who is asynchronous goes on."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, Still, simulate
from hvd_gossip.transport.simulated_links import Links, exponential

STEPS = 40


@pytest.mark.parametrize("algorithm", ["adpsgd", "acid"])
@pytest.mark.parametrize("eager_limit", [0, 1 << 16])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dead", [{3: 0.52}, {3: 0.5, 4: 0.5}, {5: 0.31, 2: 0.9}])
def test_pairs_go_on_without_the_dead(
    algorithm: str, dead: dict[int, float], seed: int, eager_limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Survivors take all their steps, come together, and depart; who met the dead says so."""
    size = 6
    values = np.random.default_rng(seed).standard_normal((size, 200)).astype(np.float32)
    report = simulate(
        algorithm,
        Still(values.copy()),
        size=size,
        steps=STEPS,
        seed=seed,
        eager_limit=eager_limit,
        chunk_bytes=256,
        links=Links(1e-3, 1e5, delay=exponential(2e-3)),
        compute=ComputeModel(0.05, exponential(1.0), seed=seed),
        settings=MixingSettings(wait_timeout=60.0),
        deaths=dead,
        detection_delay=0.1,
    )
    assert report.alive.tolist() == [rank not in dead for rank in range(size)]
    assert set(report.steps[report.alive]) == {STEPS}
    apart = values[report.alive] - values[report.alive].mean(axis=0)
    assert report.consensus_distance < 0.3 * np.sqrt(np.square(apart).sum(axis=1).mean())
    assert all(f"without rank {rank}, which has died" in caplog.text for rank in dead)
