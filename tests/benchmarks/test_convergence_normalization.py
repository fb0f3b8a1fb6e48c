"""The normalization benchmark: which images a rank sees, the layers it compares, and what becomes of its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hvd_gossip.torch as hvd
import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.convergence import normalization
from benchmarks.convergence.normalization import ACCURACY, BENCHMARK, LAYER, RATE, WORST
from benchmarks.job import Job
from benchmarks.options import NormalizationOptions
from benchmarks.ranks.normalization import choose, make_layer, make_model
from benchmarks.spread import Spread

LABELS = np.random.default_rng(0).integers(10, size=400)


def drawn(case: str, rank: int, batches: int = 30) -> list[Any]:
    stream = choose(case, LABELS, rank, 4, 3, seed=1)
    return [next(stream) for _ in range(batches)]


def test_tiny_batches_are_of_two_images_that_no_other_rank_sees() -> None:
    seen = [{int(index) for one in drawn("tiny", rank) for index in one} for rank in range(4)]
    assert all(len(one) == 2 for one in drawn("tiny", 0))
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_one_class_batches_hold_one_class_another_each_time() -> None:
    classes = [set(LABELS[one].tolist()) for one in drawn("one-class", 2)]
    assert all(len(one) == 1 for one in classes)
    assert len(set.union(*classes)) > 5


def test_skewed_batches_hold_the_ranks_own_classes() -> None:
    for rank in range(4):
        assert {int(LABELS[index]) % 4 for one in drawn("skewed", rank) for index in one} == {rank}


def test_batches_are_repeatable_and_differ_between_seeds() -> None:
    first, again = drawn("tiny", 0), drawn("tiny", 0)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], next(choose("tiny", LABELS, 0, 4, 3, seed=2)))


@pytest.mark.parametrize(("name", "kind"), [("batch", nn.BatchNorm1d), ("sync", hvd.SyncBatchNorm),
                                            ("group", nn.GroupNorm), ("full", hvd.FullNorm1d)])  # fmt: skip
def test_layers(name: str, kind: type[nn.Module]) -> None:
    model: Any = make_model(make_layer(name, 0.2))
    assert (type(model[1]), type(model[4])) == (kind, kind)
    assert getattr(model[1], "momentum", 0.2) == 0.2


def test_variants_of_full_norm() -> None:
    layers: Any = [make_layer(name, 0.1)(8) for name in ("full-untracked", "full-over-workers")]
    untracked, over_workers = layers
    assert untracked.running_grad is None
    assert over_workers.process_set is hvd.global_process_set
    assert isinstance(over_workers.running_grad, torch.Tensor)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no normalization layer 'instance'"):
        make_layer("instance", 0.1)
    with pytest.raises(ValueError, match="no kind of batches 'huge'"):
        next(choose("huge", LABELS, 0, 4, 3, seed=1))


def test_the_better_learning_rate_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = NormalizationOptions(cases=("tiny",), layers=("batch", "full"), rates=(0.1, 0.2), seeds=3)
    final = {("batch", 0.1): 0.5, ("batch", 0.2): 0.3, ("full", 0.1): 0.6, ("full", 0.2): 0.9}
    records = [
        {"layer": layer, "rate": rate, "curve": [[10, 0.1], [20, value - seed / 100]]}
        for (layer, rate), value in final.items()
        for seed in range(3)
    ]
    monkeypatch.setattr(normalization, "run_ranks", lambda *_, case: Job([records] * 4, f"launched {case}"))
    report = BENCHMARK.run(options)
    assert [(row.cells[LAYER], row.cells[RATE]) for row in report.rows] == [("BatchNorm", 0.1), ("FullNorm", 0.2)]
    spread = report.rows[1].cells[ACCURACY]
    assert isinstance(spread, Spread)
    assert spread.values == pytest.approx((90, 89, 88))
    assert report.rows[1].cells[WORST] == pytest.approx(88)
    assert report.commands == ["launched tiny"]
    (axes,) = BENCHMARK.draw(report).axes
    assert [line.get_label() for line in axes.containers] == ["BatchNorm", "FullNorm"]
    BENCHMARK.draw_into(report, tmp_path)
    assert (tmp_path / "convergence.normalization.png").stat().st_size > 5000
