"""Link models: what a message's journey costs."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hvd_gossip.errors import ConfigError
from hvd_gossip.transport.simulated_links import (
    Distribution,
    Links,
    draw,
    exponential,
    lognormal,
    pareto,
    two_level_links,
    uniform,
)


def sample(distribution: Distribution, count: int = 4000) -> list[float]:
    stream = random.Random(5)
    return [draw(distribution, stream) for _ in range(count)]


def test_constant_links_are_the_same_everywhere() -> None:
    links = Links(latency=2e-6, bandwidth=4e9)
    assert links.route(0, 1) == links.route(7, 3) == (2e-6, 0.25e-9)


def test_a_rank_reaches_itself_at_once() -> None:
    assert Links(latency=1.0, bandwidth=1.0).route(2, 2) == (0.0, 0.0)


def test_infinite_bandwidth_costs_nothing_a_byte() -> None:
    assert Links(bandwidth=math.inf).route(0, 1)[1] == 0.0


def test_matrix_is_indexed_source_then_dest() -> None:
    latency = np.array([[0.0, 1.0], [2.0, 0.0]])
    links = Links(latency=latency, bandwidth=np.full((2, 2), 8.0))
    assert links.route(0, 1) == (1.0, 0.125)
    assert links.route(1, 0) == (2.0, 0.125)


def test_function_is_called_with_source_then_dest() -> None:
    links = Links(latency=lambda source, dest: source + dest / 10, bandwidth=lambda source, dest: 2.0)
    assert links.route(3, 4) == (3.4, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": np.zeros((2, 3))}, r"latency: a matrix for 3 ranks has shape \(3, 3\), not \(2, 3\)"),
        ({"latency": -1.0}, "link 0 -> 1: latency"),
        ({"latency": math.inf}, "link 0 -> 1: latency"),
        ({"bandwidth": 0.0}, "link 0 -> 1: .*bandwidth above 0"),
        ({"bandwidth": math.nan}, "link 0 -> 1"),
        ({"delay": -0.5}, "delay: must be at least 0"),
    ],
)
def test_impossible_links_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Links(**options).validate(3)


def test_two_level_links_tell_hosts_apart() -> None:
    links = two_level_links(4, inner=(1e-6, 1e10), outer=(50e-6, 1e9), serialize_send=True)
    assert links.route(0, 3) == links.route(5, 4) == (1e-6, 1e-10)
    assert links.route(3, 4) == links.route(0, 100) == (50e-6, 1e-9)
    assert links.serialize_send


def test_two_level_links_need_a_rank_a_host() -> None:
    with pytest.raises(ConfigError, match="ranks_per_host"):
        two_level_links(0, inner=(0, 1), outer=(0, 1))


def test_a_constant_is_its_own_distribution() -> None:
    assert sample(0.25, 3) == [0.25] * 3


def test_uniform_stays_within_its_limits() -> None:
    values = sample(uniform(2.0, 3.0))
    assert 2.0 <= min(values) < 2.01
    assert 2.99 < max(values) <= 3.0


def test_exponential_has_its_mean() -> None:
    assert statistics.fmean(sample(exponential(0.5))) == pytest.approx(0.5, rel=0.05)


def test_lognormal_has_its_median() -> None:
    assert statistics.median(sample(lognormal(3.0, 0.4))) == pytest.approx(3.0, rel=0.05)


def test_pareto_has_its_tail() -> None:
    values = sample(pareto(1.0, 2.0))
    assert min(values) >= 1.0
    assert sum(value > 10 for value in values) / len(values) == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize("make", [lambda: exponential(0), lambda: lognormal(0, 1), lambda: pareto(1, 0)])
def test_distributions_check_their_parameters(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_an_interface_has_a_rank() -> None:
    with pytest.raises(ConfigError, match="ranks_per_interface must be at least 1, not 0"):
        Links(ranks_per_interface=0).validate(4)
