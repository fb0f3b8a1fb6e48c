"""Every algorithm on a device whose streams run in any order that they are not forbidden: bit by bit what NumPy gives."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from hvd_gossip.algorithms.registry import OWN
from hvd_gossip.algorithms.settings import MixingSettings
from tests.collectives.cluster import BFLOAT16
from tests.device_ranks import Rank, make_world, on_host, run_ranks
from tests.standin_cupy import install
from tests.standin_streams import MACHINE, Order

SIZE, STEPS, PROMPT = 3, 6, 1 << 30
SEQUENTIAL = {"mixing_order": "sequential"}
NARROW = {"wire_dtype": "float16"}
OUTER = {"outer_every": 3, "outer_lr": 0.7}
Run = tuple[str, Mapping[str, Any]]
RACY: list[Run] = [
    ("adpsgd", {}),
    ("adpsgd", NARROW),
    ("acid", {}),
    ("agp", {}),
    ("agp", NARROW),
]
"""These read parameters while they are being updated: what they see depends on the order, what they keep does not."""
EXACT: list[Run] = [
    ("dpsgd", {}),
    ("dpsgd", {**SEQUENTIAL, **NARROW}),
    ("dpsgd", {"global_average_every": 3, "outer": "nesterov", **OUTER, "outer_every": 4}),
    ("sgp", NARROW),
    ("sgp", {**SEQUENTIAL, "global_average_every": 2}),
    ("osgp", {}),
    ("osgp", {"tau": 3, "global_average_every": 5, **NARROW}),
    ("asgd", {"servers": 0, "softsync": 2}),
    ("asgd", {"mixing_order": "overlap", "staleness_aware": True}),
    ("d2", {}),
    ("gradient-tracking", NARROW),
    ("qg-dsgdm", {"qg_nesterov": True}),
    ("local", {"mixing_period": 2}),
    ("local", {"outer": "slowmo", **OUTER}),
    ("choco", {"compressor": "top-k", "compression_ratio": 0.3}),
    ("choco", {**SEQUENTIAL, "compressor": "random-k", "compression_ratio": 0.6, "global_average_every": 4}),
    ("choco", {"compressor": "sign"}),
    ("choco", {**SEQUENTIAL, "compressor": "identity"}),
    ("choco", {**SEQUENTIAL, "compressor": "qsgd-4"}),
    ("relaysgd", {}),
    ("relaysgd", {**SEQUENTIAL, "global_average_every": 4}),
]


def test_every_algorithm_that_takes_a_gpu_is_here() -> None:
    mixing = {kind.name for kind in OWN if kind.averages == "parameters" and not kind.one_host}
    assert {name for name, _ in RACY + EXACT} == mixing


def start(rank: int) -> list[np.ndarray]:
    stream = np.random.default_rng(rank)
    return [stream.standard_normal(28).astype(np.float32), stream.standard_normal(9).astype(BFLOAT16)]


def step(rank: Rank, number: int, slope: float) -> None:
    """A gradient, which the device has yet to compute when the step is called, and the update."""
    gradients = [x * x.dtype.type(slope) + x.dtype.type(0.01 * (number + 1)) for x in rank.x]
    rank.compute(0.05 + 0.01 * ((number * 7 + rank.number * 5) % 4))

    def update() -> None:
        for x, gradient in zip(rank.x, gradients, strict=True):
            x -= gradient

    rank.worker.step(update)


def train(rank: Rank) -> None:
    """Steps, an evaluation of the mean, parameters that are overwritten, a checkpoint; and what came of each."""
    worker, seen = rank.worker, rank.seen
    for number in range(STEPS):
        step(rank, number, 0.1)
    with worker.consensus():
        at_mean = [x * x.dtype.type(3) for x in rank.x]
    seen += [*map(on_host, at_mean), np.array(worker.consensus_distance())]
    step(rank, STEPS, 0.2)
    with worker.paused():
        for x in rank.x:
            x *= x.dtype.type(0.5)
    step(rank, 0, 0.1)
    worker.pause()
    state = worker.state_dict()
    worker.load_state_dict(spoilt(state))
    worker.load_state_dict(state)
    worker.resume()
    for number in range(2):
        step(rank, number, 0.1)
    worker.pause()
    seen += map(on_host, rank.x)


def spoilt(state: Any) -> Any:
    """The same with other numbers in its arrays."""
    if isinstance(state, dict):
        return {key: spoilt(value) for key, value in state.items()}
    if isinstance(state, list):
        return [spoilt(value) for value in state]
    return state * 2 + 1 if isinstance(state, np.ndarray) and state.dtype.kind != "i" else state


def results(name: str, settings: Mapping[str, Any], direct: bool | None, main: Any = train) -> list[list[np.ndarray]]:
    world = make_world(SIZE)
    mixing = MixingSettings(**settings)
    ranks = [Rank(world, rank, start(rank), name, mixing, "auto", direct) for rank in range(SIZE)]
    run_ranks(ranks, world, main)
    return [rank.seen for rank in ranks]


@functools.cache
def on_numpy(number: int) -> list[list[np.ndarray]]:
    MACHINE.clear()
    return results(*(EXACT + RACY)[number], None)


@functools.cache
def at_once(number: int, direct: bool) -> list[list[np.ndarray]]:
    """On a device that lags behind nobody: for what a device draws at random, and for servers that send staged copies."""
    with pytest.MonkeyPatch.context() as patch:
        install(patch, order="at once", pieces_per_look=PROMPT)
        return results(*EXACT[number], direct)


def assert_same(got: list[list[np.ndarray]], wanted: list[list[np.ndarray]]) -> None:
    for mine, theirs in zip(got, wanted, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert np.isfinite(other.astype(np.float64)).all()
            np.testing.assert_array_equal(one, other)


def named(run: Run) -> str:
    return "-".join([run[0], *map(str, run[1].values())])


@pytest.mark.parametrize("order", ["late", "training first", "random"])
@pytest.mark.parametrize("number", range(len(EXACT)), ids=map(named, EXACT))
def test_what_one_thread_reads_the_other_has_made(number: int, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    name, settings = EXACT[number]
    direct = order == "training first" or (order == "random" and number % 2 == 0)
    # Where a server takes updates as they come, they must come when NumPy's do.
    looks = PROMPT if name == "asgd" else 3
    differs = "qsgd" in str(settings) or (name == "asgd" and not direct)
    expected = at_once(number, direct) if differs else on_numpy(number)
    install(monkeypatch, order=order, seed=number, pieces_per_look=looks)
    assert_same(results(name, settings, direct), expected)


@pytest.mark.parametrize("order", ["late", "engine first"])
@pytest.mark.parametrize("number", range(len(RACY)), ids=map(named, RACY))
def test_those_who_wait_for_nobody_as_well(number: int, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the training thread's work happens no earlier than it must, it races with nothing."""
    install(monkeypatch, order=order, pieces_per_look=PROMPT)
    assert_same(results(*RACY[number], direct=order == "late"), on_numpy(len(EXACT) + number))


def drift(rank: Rank) -> None:
    for number in range(2 * STEPS):
        step(rank, number, 0.0)
    rank.worker.pause()
    weights = getattr(rank.worker.algorithm, "weights", np.ones(len(rank.worker.replica.chunks)))
    weight = np.repeat(weights, [chunk.x.size for chunk in rank.worker.replica.chunks])[: rank.x[0].size]
    rank.seen += [weight, weight * on_host(rank.x[0])]


@pytest.mark.parametrize("order", ["training first", "random"])
@pytest.mark.parametrize("number", range(len(RACY)), ids=map(named, RACY))
def test_what_is_read_while_it_changes_neither_comes_nor_goes(
    number: int, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, order=order, seed=number, pieces_per_look=3)
    total = np.sum(results(*RACY[number], direct=number % 2 == 0, main=drift), axis=0)
    gone = SIZE * sum(0.01 * (step + 1) for step in range(2 * STEPS))
    np.testing.assert_allclose(total[0], SIZE, rtol=1e-6)
    np.testing.assert_allclose(total[1], sum(start(rank)[0] for rank in range(SIZE)) - gone, atol=2e-5)
