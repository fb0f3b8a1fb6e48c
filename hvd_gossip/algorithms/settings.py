"""The settings that shape an algorithm's exchanges; `config` declares their flags, defaults and help."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MixingSettings:
    """Settings of one algorithm instance.

    Attributes:
        mixing_order: "overlap" (the exchange of x(k) runs beside the gradient's computation) or "sequential" (update,
            then exchange, then go on: the papers' adapt-then-combine order).
        mixing_period: exchange on every `mixing_period`-th step.
        global_average_every: take the exact average instead of an exchange every so many steps; 0 is never.
        wire_dtype: "parameter" (as stored), "float32", "float16" or "bfloat16".
        consensus_sample_every: estimate the consensus distance at every so many-th exchange; 0 is never.
        seed: seeds the choice of partners; equal on all ranks.
        wait_timeout: seconds that one wait for a peer may last.
    """

    mixing_order: str = "overlap"
    mixing_period: int = 1
    global_average_every: int = 0
    wire_dtype: str = "parameter"
    consensus_sample_every: int = 0
    seed: int = 0
    wait_timeout: float = 1800.0
