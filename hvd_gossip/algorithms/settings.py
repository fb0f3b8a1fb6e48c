"""The settings that shape an algorithm's exchanges, each declared once: `config.Config` takes them over with flag and help.

General settings mean something to every algorithm that mixes parameters; the others to those that list them in `heeds`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvd_gossip.setting import (
    Boolean,
    Choice,
    Integer,
    Number,
    Options,
    declare,
)

MIXING, PARTICULAR, TRANSPORT, OBSERVE = (
    "Mixing",
    "Mixing by particular algorithms",
    "Transport and engine",
    "Observation",
)
GENERAL = frozenset({"seed", "wait_timeout", "consensus_sample_every"})
"""Settings that every algorithm may be given."""
OUTER = frozenset({"outer", "outer_every", "outer_lr", "outer_momentum"})
"""Settings of the outer step, which any algorithm that mixes parameters may have."""


@dataclass(frozen=True)
class MixingSettings:
    """Settings of one algorithm instance; `docs/settings.md` lists them with their values and defaults."""

    mixing_order: str = declare(
        "auto",
        Choice("auto", "overlap", "sequential"),
        MIXING,
        "overlap: the exchange runs beside the gradient's computation; sequential: update, exchange, then go on; auto: "
        "overlap where the algorithm can.",
    )
    mixing_period: int = declare(1, Integer(1), MIXING, "Exchange on every so many-th step.", unit="steps")
    global_average_every: int = declare(
        0,
        Integer(0),
        MIXING,
        "Take the exact average instead of an exchange every so many steps; 0: never.",
        unit="steps",
    )
    wire_dtype: str = declare(
        "parameter",
        Choice("parameter", "float32", "float16", "bfloat16"),
        MIXING,
        "Type in which parameters travel; parameter: as they are stored.",
    )
    seed: int = declare(
        0, Integer(0, 2**63 - 1), MIXING, "Seeds the choice of partners and random topologies; the same on all ranks."
    )
    outer: str = declare(
        "none",
        Choice("none", "slowmo", "nesterov"),
        MIXING,
        "An outer step over any algorithm that mixes parameters, from one exact average to the next: slowmo, or DiLoCo's "
        "nesterov.",
    )
    outer_every: int = declare(48, Integer(1), MIXING, "Steps from one outer step to the next.", unit="steps")
    outer_lr: float = declare(1.0, Number(0, above=True), MIXING, "Learning rate of the outer step.")
    outer_momentum: float = declare(0.7, Number(0, 1), MIXING, "Momentum of the outer step.")
    tau: int = declare(1, Integer(1), PARTICULAR, "osgp: an exchange is complete so many steps later.", unit="steps")
    qg_momentum: float = declare(
        0.9, Number(0, 1), PARTICULAR, "qg-dsgdm: momentum of what all workers together have done."
    )
    qg_nesterov: bool = declare(
        False, Boolean(), PARTICULAR, "qg-dsgdm: Nesterov's form of its momentum (the paper's QG-DSGDm-N)."
    )
    servers: int = declare(
        1, Integer(0), PARTICULAR, "asgd: so many ranks keep the parameters, a shard each; 0: all ranks."
    )
    staleness_aware: bool = declare(
        False,
        Boolean(),
        PARTICULAR,
        "asgd: an update counts the less the older the parameters are that it was made at.",
    )
    softsync: int = declare(1, Integer(1), PARTICULAR, "asgd: updates that a server averages before it applies them.")
    compressor: str = declare(
        "top-k",
        Choice("identity", "top-k", "random-k", "qsgd-8", "qsgd-4", "sign"),
        PARTICULAR,
        "choco: what compresses the differences that travel.",
    )
    compression_ratio: float = declare(
        0.1, Number(0, above=True), PARTICULAR, "choco: share of the elements that top-k and random-k keep; at most 1."
    )
    consensus_step: float = declare(
        0.0, Number(0), PARTICULAR, "choco: consensus step size gamma, at most 1; 0: what suits the compressor."
    )
    acid_momentum: float = declare(
        1.0,
        Number(0),
        PARTICULAR,
        "acid: momentum between parameters and companion, in multiples of what the topology asks for; 0: none.",
    )
    algorithm_options: str = declare(
        "",
        Options(),
        PARTICULAR,
        "For an algorithm of your own, which reads them as `settings.options`.",
        repeatable=True,
    )
    consensus_sample_every: int = declare(
        0, Integer(0), OBSERVE, "Measure the consensus distance every so many steps; 0: never.", unit="steps"
    )
    wait_timeout: float = declare(
        1800.0,
        Number(0, above=True),
        TRANSPORT,
        "How long one wait for a peer may last before it is an error.",
        unit="s",
    )

    @property
    def options(self) -> dict[str, str]:
        """`algorithm_options` as a dictionary."""
        return Options.pairs(self.algorithm_options)
