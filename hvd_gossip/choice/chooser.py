"""Collects what `--algorithm auto` decides by, and says how it decided."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hvd_gossip.algorithms.registry import AUTO, find_algorithm
from hvd_gossip.algorithms.table import render
from hvd_gossip.choice.cost import Decision, Measurements, Prediction, choose
from hvd_gossip.config import Config
from hvd_gossip.errors import ConfigError

MEANWHILE = "allreduce"
"""How a run trains until it is decided."""
QUARTILES_TO_DEVIATION = 1.349
"""Between the quartiles of a normal distribution lie so many standard deviations."""


def meanwhile(config: Config) -> Config:
    """The configuration in force until the choice is made: the one that is given, unless it says `auto`."""
    return config.override({"algorithm": MEANWHILE, "topology": "auto"}) if config.algorithm == AUTO else config


class Chooser:
    """One rank's part in the choice. Owner: the training thread.

    Args:
        asked: the configuration that says `auto`; its topology, unless that says `auto` too, is kept.
        rank, size: of this worker.
        latency, bandwidth: of its links, s and B/s (see `probe`).
    """

    def __init__(self, asked: Config, rank: int, size: int, latency: float, bandwidth: float) -> None:
        self.asked = asked
        self._rank, self._size = rank, size
        self._links = (latency, bandwidth)
        self._compute: list[float] = []

    @property
    def ready(self) -> bool:
        """Whether it has seen enough steps."""
        return len(self._compute) >= self.asked.auto_steps

    def record(self, compute_seconds: float) -> None:
        """One step's time less its waiting; more steps than are asked for change nothing."""
        if not self.ready:
            self._compute.append(compute_seconds)

    def measured(self, nbytes: int) -> np.ndarray:
        """(size, 5), float64: this rank's row, zeros in the others; the sum over the ranks is what `decide` takes."""
        low, middle, high = np.percentile(self._compute, (25, 50, 75))
        matrix = np.zeros((self._size, 5))
        matrix[self._rank] = (middle, (high - low) / QUARTILES_TO_DEVIATION / middle, *self._links, nbytes)
        return matrix

    def decide(self, matrix: np.ndarray) -> Decision:
        """The same on every rank: all have the same matrix, bit by bit, since zeros were added."""
        if not np.all(matrix[:, 0] > 0):
            seconds = float(matrix[:, 0].max())
            exact = Prediction(MEANWHILE, 1, seconds, seconds, "")
            return Decision(exact, "not all ranks were training when it was to be decided", (exact,))
        compute, jitter, latency, bandwidth, nbytes = matrix.T
        measurements = Measurements(
            compute=tuple(compute.tolist()),
            jitter=float(np.median(jitter)),
            latency=float(np.median(latency)),
            bandwidth=float(np.median(bandwidth)),
            nbytes=int(nbytes.max()),
        )
        return choose(measurements)

    def settings(self, decision: Decision) -> dict[str, Any]:
        """The settings that a decision makes."""
        chosen = decision.chosen
        heeds = find_algorithm(chosen.algorithm).heeds
        period = {"mixing_period": chosen.period} if "mixing_period" in heeds else {}
        return {"algorithm": chosen.algorithm, "topology": self.asked.topology, **period}


def describe(decision: Decision, matrix: np.ndarray) -> str:
    """The candidates as a table, below what was measured."""
    compute, jitter, latency, bandwidth, nbytes = matrix.T
    table = Table(
        title=f"hvd-gossip: auto chooses {decision.chosen.algorithm}: {decision.reason}\n"
        f"measured: compute {compute.min() * 1e3:.3g} to {compute.max() * 1e3:.3g} ms a step (jitter "
        f"{np.median(jitter):.1%}), latency {np.median(latency) * 1e6:.3g} us, bandwidth "
        f"{np.median(bandwidth) / 1e6:.4g} MB/s, parameters {nbytes.max() / 1e6:.3g} MB",
        box=SIMPLE_HEAD,
        title_justify="left",
    )
    for column in ("algorithm", "topology", "period", "predicted step", "why"):
        table.add_column(column)
    for one in decision.candidates:
        kind = find_algorithm(one.algorithm)
        topology = "none" if kind.needs == "none" else kind.default_topology
        table.add_row(one.algorithm, topology, str(one.period), f"{one.seconds * 1e3:.4g} ms", one.why)
    return render(table)


def refuse_undecided(chooser: Chooser | None, what: str) -> None:
    """For what cannot change its algorithm in the middle of a run.

    Raises:
        ConfigError: the run says `auto`, and it is not decided yet.
    """
    if chooser is not None:
        raise ConfigError(
            f"algorithm 'auto' is not there for {what}: name one, hvd-gossip-run --list-algorithms lists them"
        )
