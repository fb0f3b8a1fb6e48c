"""How long a simulated message takes: latency, bandwidth, random delay and network interfaces."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvd_gossip.errors import ConfigError

Distribution = float | Callable[[random.Random], float]
"""A constant, or a function that draws a value from a random stream."""
LinkValue = float | np.ndarray[Any, Any] | Callable[[int, int], float]
"""One value for all links, a (size, size) array indexed [source, dest], or a function (source, dest) -> value."""


def uniform(low: float, high: float) -> Distribution:
    """Values spread evenly over [low, high]."""
    return lambda stream: stream.uniform(low, high)


def exponential(mean: float) -> Distribution:
    """Memoryless values with this mean: the usual model of queueing delay."""
    if mean <= 0:
        raise ConfigError(f"the mean of an exponential distribution must be positive, not {mean}")
    return lambda stream: stream.expovariate(1.0 / mean)


def lognormal(median: float, sigma: float) -> Distribution:
    """Values whose logarithm is normal around log(median) with deviation `sigma`: mostly alike, now and then large."""
    if median <= 0 or sigma < 0:
        raise ConfigError(f"a lognormal distribution needs median > 0 and sigma >= 0, not {median} and {sigma}")
    return lambda stream: stream.lognormvariate(math.log(median), sigma)


def pareto(scale: float, alpha: float) -> Distribution:
    """Heavy-tailed values of at least `scale`: P(value > t) = (scale / t)^alpha."""
    if scale <= 0 or alpha <= 0:
        raise ConfigError(f"a Pareto distribution needs scale > 0 and alpha > 0, not {scale} and {alpha}")
    return lambda stream: scale * stream.paretovariate(alpha)


def draw(distribution: Distribution, stream: random.Random) -> float:
    """One value of the distribution."""
    return distribution(stream) if callable(distribution) else distribution


def _look_up(value: LinkValue, source: int, dest: int) -> float:
    if callable(value):
        return float(value(source, dest))
    return float(value[source, dest]) if isinstance(value, np.ndarray) else float(value)


@dataclass(frozen=True)
class Links:
    """The links between every two ranks. A message of b bytes takes latency + delay + b / bandwidth.

    Attributes:
        latency: seconds until the first byte arrives.
        bandwidth: bytes per second; infinity is allowed.
        delay: extra seconds drawn for every message. Messages on different channels overtake each other; those of one
            (source, dest, channel) never do: a message waits for the ones before it.
        serialize_send: a rank sends one message at a time, the others queue (its network interface is the bottleneck).
        serialize_receive: a rank takes in one message at a time, in the order in which their first bytes arrive.
        ranks_per_interface: so many ranks (those of a host) share the interface that the two options above are about;
            messages between them do not pass it.
        express_bytes: messages of up to so many bytes do not queue at an interface: a network interleaves packets, and
            a token does not wait for the megabytes before it.
    """

    latency: LinkValue = 10e-6
    bandwidth: LinkValue = 10e9
    delay: Distribution = 0.0
    serialize_send: bool = False
    serialize_receive: bool = False
    ranks_per_interface: int = 1
    express_bytes: float = 0

    def validate(self, size: int) -> None:
        """Raises ConfigError for a matrix of the wrong shape or a value that no link can have."""
        for name, value in (("latency", self.latency), ("bandwidth", self.bandwidth)):
            if isinstance(value, np.ndarray) and value.shape != (size, size):
                raise ConfigError(f"{name}: a matrix for {size} ranks has shape ({size}, {size}), not {value.shape}")
        if self.ranks_per_interface < 1:
            raise ConfigError(f"ranks_per_interface must be at least 1, not {self.ranks_per_interface}")
        if not callable(self.delay) and not 0 <= self.delay < math.inf:
            raise ConfigError(f"delay: must be at least 0 and finite, not {self.delay}")
        if size > 1:
            self.route(0, 1)

    @property
    def plain(self) -> bool:
        """Whether a message takes what its route and length say, whatever else travels."""
        return not (self.delay or self.serialize_send or self.serialize_receive)

    @property
    def alike(self) -> bool:
        """Whether the route between any two ranks is the same."""
        return not any(callable(value) or isinstance(value, np.ndarray) for value in (self.latency, self.bandwidth))

    def queues(self, source: int, dest: int, nbytes: float) -> bool:
        """Whether a message of so many bytes waits for its turn at an interface."""
        shared = self.ranks_per_interface
        return nbytes > self.express_bytes and (shared == 1 or source // shared != dest // shared)

    def route(self, source: int, dest: int) -> tuple[float, float]:
        """(latency in s, seconds per byte) of a link; a rank reaches itself at once.

        Raises:
            ConfigError: the latency is negative or infinite, or the bandwidth is not positive.
        """
        if source == dest:
            return 0.0, 0.0
        latency, bandwidth = _look_up(self.latency, source, dest), _look_up(self.bandwidth, source, dest)
        if not 0 <= latency < math.inf or not bandwidth > 0:
            raise ConfigError(
                f"link {source} -> {dest}: latency must be finite and at least 0, bandwidth above 0; "
                f"they are {latency} s and {bandwidth} B/s"
            )
        return latency, 1.0 / bandwidth


def two_level_links(
    ranks_per_host: int, *, inner: tuple[float, float], outer: tuple[float, float], **options: Any
) -> Links:
    """Links of a cluster: `inner` = (latency in s, bandwidth in B/s) within a host, `outer` between hosts.

    Rank r lives on host r // ranks_per_host. `options` are passed on to `Links`.
    """
    if ranks_per_host < 1:
        raise ConfigError(f"ranks_per_host must be at least 1, not {ranks_per_host}")

    def pick(index: int) -> Callable[[int, int], float]:
        near, far = inner[index], outer[index]
        return lambda source, dest: near if source // ranks_per_host == dest // ranks_per_host else far

    return Links(latency=pick(0), bandwidth=pick(1), **options)
