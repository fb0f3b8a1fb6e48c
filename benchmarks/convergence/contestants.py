"""The algorithms that the simulated benchmarks compare. One that is not registered (yet) is left out; adding one is a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import plots
from hvd_gossip.algorithms.registry import ALGORITHMS


@dataclass(frozen=True)
class Contestant:
    """An algorithm as it is run here.

    Attributes:
        algorithm: its registered name.
        topology: as `simulate` takes it.
        settings: fields of MixingSettings.
        published: what it is called in RelaySGD's table 2 (Vogels et al., NeurIPS 2021), with its accuracies there.
    """

    algorithm: str
    topology: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        more = "".join(f", {name}={value}" for name, value in self.settings.items())
        return f"{self.algorithm} ({self.topology}{more})" if self.topology != "auto" else self.algorithm + more


def _table(*accuracies: float) -> dict[str, float]:
    return dict(zip(("1", "0.1", "0.01"), accuracies, strict=True))


SKEWED = (
    Contestant("allreduce", published=_table(87.0, 87.0, 87.0)),
    Contestant("dpsgd", "ring", published=_table(87.4, 79.9, 53.9)),
    Contestant("d2", "ring", published=_table(87.2, 84.0, 38.2)),
    Contestant("gradient-tracking", "ring"),
    Contestant("qg-dsgdm", "ring", published=_table(89.5, 84.8, 63.3)),
    Contestant("sgp", "one-peer-exponential", published=_table(87.4, 86.7, 86.7)),
    # The paper's order. With "overlap" what is relayed is a step older still, and larger learning rates diverge.
    Contestant("relaysgd", "binary-tree", {"mixing_order": "sequential"}, published=_table(87.4, 86.9, 84.6)),
    Contestant("adpsgd"),
)


def registered(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Those whose algorithm is there."""
    return [one for one in contestants if one.algorithm in ALGORITHMS]


def missing(contestants: Sequence[Contestant]) -> str:
    """A note that names the others."""
    absent = [one.algorithm for one in contestants if one.algorithm not in ALGORITHMS]
    return (
        f"Not registered in this version, and left out: {', '.join(absent)}." if absent else "All algorithms took part."
    )


COLOURS = (plots.GREY, plots.ORANGE, plots.BLUE, plots.GREEN, plots.PURPLE, plots.SKY, plots.INK, "#E69F00")
MARKERS = "os^Dv*Px"
