"""The classifiers of the simulator: gradients, loss, and how data are shared out."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.simulate import simulate
from hvd_gossip.simulate_classification import Labelled, SoftmaxRegression, share_by_dirichlet, share_by_label

CLASSES, FEATURES = 3, 4


def data(rows: int = 60, seed: int = 0) -> Labelled:
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=rows)
    return Labelled(rng.standard_normal((rows, FEATURES)) + labels[:, None], labels)


def shards(size: int) -> list[Labelled]:
    whole = data()
    return [Labelled(whole.inputs[share], whole.labels[share]) for share in share_by_label(whole.labels, size)]


@pytest.mark.parametrize("hidden", [0, 5])
def test_gradients_are_those_of_the_loss(hidden: int) -> None:
    problem = SoftmaxRegression(shards(2), classes=CLASSES, hidden=hidden, decay=0.1)
    rng = np.random.default_rng(1)
    x = problem.initial(0) + rng.standard_normal(problem.initial(0).shape)
    gradient = np.mean([problem.gradient(rank, x, rng) for rank in range(2)], axis=0)
    for place in range(len(x)):
        step = np.zeros_like(x)
        step[place] = 1e-6
        slope = (problem.loss(x + step) - problem.loss(x - step)) / 2e-6
        assert gradient[place] == pytest.approx(slope, abs=1e-7)


def test_the_loss_is_the_cross_entropy() -> None:
    problem = SoftmaxRegression(shards(2), classes=CLASSES)
    assert problem.loss(problem.initial(0)) == pytest.approx(np.log(CLASSES))
    huge = problem.initial(0)
    huge[-CLASSES:] = [1e4, 0, 0]
    assert np.isfinite(problem.loss(huge))


def test_batches_are_unbiased() -> None:
    problem = SoftmaxRegression(shards(2), classes=CLASSES, batch=2)
    whole = SoftmaxRegression(shards(2), classes=CLASSES)
    rng, x = np.random.default_rng(0), problem.initial(0) + 0.1
    mean = np.mean([problem.gradient(1, x, rng) for _ in range(5000)], axis=0)
    np.testing.assert_allclose(mean, whole.gradient(1, x, rng), atol=0.05)


def test_parameters_keep_their_type_and_workers_begin_alike() -> None:
    problem = SoftmaxRegression(shards(2), classes=CLASSES, hidden=3, dtype=np.float32)
    first, second = problem.initial(0), problem.initial(1)
    assert first.dtype == problem.gradient(0, first, np.random.default_rng(0)).dtype == np.float32
    assert np.array_equal(first, second)
    assert first is not second


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_network_is_trained_by_the_simulator(hidden: int) -> None:
    problem = SoftmaxRegression(shards(4), classes=CLASSES, hidden=hidden, batch=8)
    report = simulate("allreduce", problem, size=4, steps=150, learning_rate=0.3)
    assert problem.loss(report.mean) < 0.7 * problem.loss(problem.initial(0))
    assert problem.accuracy(report.mean, data()) > 0.7


def test_shares_by_label_hold_few_classes_and_everything_once() -> None:
    labels = data(120).labels
    shares = share_by_label(labels, 6, seed=3)
    assert sorted(np.concatenate(shares)) == list(range(120))
    assert all(len(np.unique(labels[share])) <= 2 for share in shares)
    assert any(not np.array_equal(a, b) for a, b in zip(shares, share_by_label(labels, 6, seed=4), strict=True))


def test_shares_by_dirichlet_are_equal_disjoint_and_as_skewed_as_alpha_says() -> None:
    labels = np.repeat(np.arange(10), 60)
    largest = {}
    for alpha in (0.01, 1.0, 100.0):
        shares = share_by_dirichlet(labels, 8, alpha, seed=1)
        everything = np.concatenate(shares)
        assert len(set(everything.tolist())) == len(everything) == 8 * (600 // 8)
        assert {len(share) for share in shares} == {75}
        counts = [np.bincount(labels[share], minlength=10).max() / 75 for share in shares]
        largest[alpha] = float(np.mean(counts))
    assert largest[0.01] > 0.6 > largest[1.0] > 0.2 > largest[100.0]


def test_a_worker_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"workers \[1\] have no samples"):
        SoftmaxRegression([data(), data(0)], classes=CLASSES)
