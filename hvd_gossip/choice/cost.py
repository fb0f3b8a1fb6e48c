"""What a step will cost under each candidate: pure functions of what was measured, the same on every rank.

With c_i the seconds that worker i computes for a step, n workers, B bytes of parameters, links of latency l and bandwidth b:

    allreduce     max c_i + jitter + what of 2 l + 2 (n - 1) M(B / n) does not fit beside the backward pass
    dpsgd, sgp    max c_i + jitter of two + what of an exchange l + M(B) does not fit beside one step, over the period
    adpsgd        the larger of n / sum(1 / c_i) and an exchange 2 l + M(B), over the longest period

M(B) = B / b and the latencies of its messages: three for each of more than EAGER_BYTES, which MPI sends only once the receiver
is ready; exchanges send chunks, a few side by side. Synchronous workers go at the slowest one's pace, whoever meets whom, since
none can be ahead of a neighbour by more than an exchange; asynchronous ones together make sum(1 / c_i) steps a second. The
largest of n normally distributed times is about sqrt(2 ln n) standard deviations above their mean.

A mean of neighbours is not the exact mean, and is less so the longer the period: candidates are compared by seconds (1 + SPARSER
log2(period)), and gossip must win by MARGIN. These two, and the longest period, are choices, not measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hvd_gossip.algorithms.lanes import LANES
from hvd_gossip.buffers.replica import CHUNK_BYTES

MARGIN = 0.1
"""Gossip is chosen if its step is predicted to be shorter by more than this share."""
SAME = 0.05
"""Of gossip algorithms within this share of the fastest the first one is chosen."""
OVERLAP = 0.5
"""Share of the compute beside which gradients can travel: the backward pass, less its beginning."""
SPARSER = 0.05
"""What doubling the period is held to cost, as a share of the step."""
PERIODS = (1, 2, 4, 8)
EAGER_BYTES = 1 << 16


@dataclass(frozen=True)
class Measurements:
    """What was measured.

    Attributes:
        compute: seconds that each worker computes for a step.
        jitter: standard deviation of a worker's step, as a share of its length.
        latency: seconds until a short message has arrived.
        bandwidth: bytes a second of a link, while all workers send and receive.
        nbytes: of the model's trainable parameters.
    """

    compute: tuple[float, ...]
    jitter: float
    latency: float
    bandwidth: float
    nbytes: int

    @property
    def size(self) -> int:
        return len(self.compute)

    @property
    def slowest(self) -> float:
        return max(self.compute)

    @property
    def together(self) -> float:
        """Seconds a step of each, if nobody waits for anybody: n steps in so many seconds."""
        return self.size / sum(1 / seconds for seconds in self.compute)

    def largest_of(self, workers: int) -> float:
        """Expected seconds of the slowest worker's step, waiting for so many that jitter."""
        return self.slowest * (1 + self.jitter * math.sqrt(2 * math.log(workers)))


@dataclass(frozen=True)
class Prediction:
    """One candidate.

    Attributes:
        algorithm, period: what would be set.
        seconds: of a step.
        cost: by which candidates are compared: seconds, and what mixing less often costs.
        why: what makes it so long, in a phrase.
    """

    algorithm: str
    period: int
    seconds: float
    cost: float
    why: str


@dataclass(frozen=True)
class Decision:
    """The candidate that is chosen, why, and all candidates."""

    chosen: Prediction
    reason: str
    candidates: tuple[Prediction, ...]


def predict(measured: Measurements, overlap: float = OVERLAP) -> list[Prediction]:
    """Every candidate, allreduce first; for one worker that is all.

    Args:
        measured: of all workers.
        overlap: share of the compute beside which gradients can travel.
    """
    if measured.size == 1:
        return [Prediction("allreduce", 1, measured.slowest, measured.slowest, "one worker")]
    return [
        _allreduce(measured, overlap),
        _synchronous("dpsgd", measured),
        _synchronous("sgp", measured),
        _asynchronous(measured),
    ]


def choose(measured: Measurements, overlap: float = OVERLAP) -> Decision:
    """The same for the same measurements, so that all ranks decide alike."""
    candidates = tuple(predict(measured, overlap))
    exact, gossip = candidates[0], candidates[1:]
    if not gossip:
        return Decision(exact, "one worker has nobody to exchange with", candidates)
    cheapest = min(candidate.cost for candidate in gossip)
    best = next(candidate for candidate in gossip if candidate.cost <= cheapest * (1 + SAME))
    gain = 1 - best.cost / exact.cost
    if gain <= MARGIN:
        return Decision(exact, f"gossip gains nothing here: {best.algorithm} would save {max(gain, 0):.0%}", candidates)
    return Decision(best, f"it saves {gain:.0%} of allreduce's step", candidates)


def _allreduce(measured: Measurements, overlap: float) -> Prediction:
    n = measured.size
    transfer = 2 * measured.latency + 2 * (n - 1) * _message(measured, measured.nbytes / n)
    visible = max(0.0, transfer - overlap * measured.slowest)
    seconds = measured.largest_of(n) + visible
    why = f"waits for the slowest; {_ms(visible)} of {_ms(transfer)} of transfers do not fit beside the backward pass"
    return Prediction("allreduce", 1, seconds, seconds, why)


def _synchronous(algorithm: str, measured: Measurements) -> Prediction:
    exchange, alone = _exchange(measured, 1), measured.largest_of(2)
    steps = {period: alone + max(0.0, exchange - alone) / period for period in PERIODS}
    period = min(PERIODS, key=lambda period: steps[period] * _sparser(period))
    why = f"neighbours wait for the slowest; an exchange takes {_ms(exchange)}"
    return Prediction(algorithm, period, steps[period], steps[period] * _sparser(period), why)


def _asynchronous(measured: Measurements) -> Prediction:
    exchange, alone = _exchange(measured, 2), measured.together
    period = next((period for period in PERIODS if exchange <= period * alone), PERIODS[-1])
    seconds = max(alone, exchange / PERIODS[-1])
    why = f"waits for nobody; an exchange takes {_ms(exchange)}"
    return Prediction("adpsgd", period, seconds, seconds * _sparser(max(1.0, exchange / alone)), why)


def _exchange(measured: Measurements, tokens: int) -> float:
    """Seconds from an exchange's first token to its last chunk."""
    chunks = math.ceil(measured.nbytes / CHUNK_BYTES)
    one = _message(measured, min(measured.nbytes, CHUNK_BYTES)) - min(measured.nbytes, CHUNK_BYTES) / measured.bandwidth
    return tokens * measured.latency + math.ceil(chunks / LANES) * one + measured.nbytes / measured.bandwidth


def _message(measured: Measurements, nbytes: float) -> float:
    return measured.latency * (3 if nbytes > EAGER_BYTES else 1) + nbytes / measured.bandwidth


def _sparser(period: float) -> float:
    return 1 + SPARSER * math.log2(period)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
