"""What the other benchmarks make of their ranks' records: figures, targets, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import collectives, exchange, fusion, idle, keras_fit, memory, overhead, overlap, parity
from benchmarks.benchmark import Benchmark
from benchmarks.job import Job, run_ranks
from benchmarks.options import (
    CollectivesOptions,
    ExchangeOptions,
    FusionOptions,
    IdleOptions,
    KerasFitOptions,
    MemoryOptions,
    OverheadOptions,
    OverlapOptions,
    ParityOptions,
)
from benchmarks.report import Report, Row
from benchmarks.spread import Spread

Times = list[list[float]]
Results = Callable[..., list[Any]]


@pytest.fixture
def replace_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Results], None]:
    """Lets a benchmark's ranks return what a function says; it gets the number of ranks and their arguments."""

    def replace(module: Any, results: Results) -> None:
        monkeypatch.setattr(
            module, "run_ranks", lambda name, ranks, options, **more: Job(results(ranks, **more), f"{name} on {ranks}")
        )

    return replace


def lasting(*seconds: float) -> Times:
    """Starts and ends of repetitions of so many seconds, each one at a full hundred."""
    starts = [100.0 * number for number in range(len(seconds))]
    return [starts, [start + length for start, length in zip(starts, seconds, strict=True)]]


def figure(row: Row, column: str) -> float:
    cell = row.cells[column]
    assert isinstance(cell, Spread)
    return cell.median


def check_picture(benchmark: Benchmark[Any], report: Report, folder: Path) -> None:
    """It is written, not empty, and every axis that has numbers says what they are."""
    for axes in benchmark.draw(report).axes:
        assert axes.get_ylabel()
        assert axes.get_title()
        assert "(" in axes.get_ylabel() or "÷" in axes.get_ylabel(), "a unit, or a ratio"
    benchmark.draw_into(report, folder)
    with Image.open(folder / f"{benchmark.name}.png") as image:
        assert len(image.convert("L").getcolors() or [()] * 256) > 8


def test_overhead_compares_blocks_with_their_own_baselines(
    replace_ranks: Callable[[Any, Results], None], tmp_path: Path
) -> None:
    """The second repetition is disturbed as a whole: the ratios stay."""

    def records(rank: int) -> list[dict[str, Any]]:
        blocks = []
        for factor in (1.0, 3.0):
            for algorithm, cost in (("dpsgd", 1.02), ("allreduce", 1.5)):
                for kind, seconds in (("plain", 1.0), ("distributed", cost)):
                    seconds *= 0.05 * factor * (1 + 0.1 * rank)
                    share = 0.01 if kind == "distributed" else 0.0
                    blocks.append(
                        {
                            "kind": kind,
                            "algorithm": algorithm,
                            "step_seconds": seconds,
                            "waited_share": share,
                            "cpu_share": 0.1,
                        }
                    )
        return blocks

    replace_ranks(overhead, lambda ranks: [records(rank) for rank in range(ranks)])
    report = overhead.BENCHMARK.run(OverheadOptions(ranks=2, algorithms=("dpsgd", "allreduce"), repetitions=2))
    dpsgd, allreduce = report.rows
    assert dpsgd.cells[overhead.RATIO].values == pytest.approx([1.02, 1.02])  # type: ignore[union-attr]
    assert figure(dpsgd, overhead.COMPUTE) == pytest.approx((52.5 + 3 * 52.5) / 2)
    assert dpsgd.passes() == {overhead.RATIO: True, overhead.WAITED: True}
    assert figure(dpsgd, overhead.WAITED) == pytest.approx(1.0)
    assert figure(allreduce, overhead.RATIO) == pytest.approx(1.5)
    assert allreduce.passes() == {}, "the baseline has no target"
    check_picture(overhead.BENCHMARK, report, tmp_path)


def test_collectives_judge_small_ones_by_difference_and_large_ones_by_ratio(
    replace_ranks: Callable[[Any, Results], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large, largest = 1 << 10, 4 << 20, 60 << 20
    seconds = {small: (0.00035, 0.0001), large: (0.009, 0.010), largest: (0.07, 0.100)}

    def results(ranks: int) -> list[Any]:
        ways = {
            str(size): {
                "ours in place": lasting(ours, ours), "raw in place": lasting(raw, raw), "ours": lasting(ours, ours),
                "raw": lasting(2 * raw, 2 * raw), "gloo": lasting(1.0, 1.0),
            }
            for size, (ours, raw) in seconds.items()
        }  # fmt: skip
        return [ways] * ranks

    monkeypatch.setattr(collectives, "horovod_version", lambda: None)
    replace_ranks(collectives, results)
    report = collectives.BENCHMARK.run(CollectivesOptions(ranks=(2, 4), bytes=tuple(seconds)))
    assert len(report.rows) == 2 * 3 * 2
    in_place = [row for row in report.rows[:6] if row.cells[collectives.FORM] == "in place"]
    new = [row for row in report.rows[:6] if row.cells[collectives.FORM] == "new tensor"]
    assert [list(row.passes().items()) for row in in_place] == [
        [(collectives.MORE, False), (collectives.OURS, True)], [(collectives.RATIO, True)], [(collectives.RATIO, False)],
    ]  # fmt: skip
    assert figure(in_place[0], collectives.MORE) == pytest.approx(250.0)
    assert all(all(row.passes().values()) for row in new), "each form has its own baseline"
    assert [row.cells[collectives.SIZE] for row in new] == ["1 KiB", "4 MiB", "60 MiB"]
    assert report.commands == ["collectives on 2", "collectives on 4"]
    check_picture(collectives.BENCHMARK, report, tmp_path)


def test_collectives_stand_beside_a_horovod_that_is_installed(
    replace_ranks: Callable[[Any, Results], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (1 << 10, 60 << 20)
    ways = ("ours in place", "raw in place", "ours", "raw", "gloo", "horovod")
    seconds = {way: 0.06 if way == "horovod" else 0.04 for way in ways}
    times = {str(size): {way: lasting(took, took) for way, took in seconds.items()} for size in sizes}
    monkeypatch.setattr(collectives, "horovod_version", lambda: "0.28.1")
    replace_ranks(collectives, lambda ranks: [times] * ranks)
    report = collectives.BENCHMARK.run(CollectivesOptions(ranks=(2,), bytes=sizes))
    small, _, large, large_new = report.rows
    assert figure(large, collectives.HOROVOD) == pytest.approx(60.0)
    assert large.cells[collectives.TO_HOROVOD] == pytest.approx(2 / 3)
    assert large.passes()[collectives.TO_HOROVOD] is False
    assert collectives.TO_HOROVOD not in small.targets
    assert collectives.HOROVOD not in large_new.cells, "it was measured in place"
    assert report.commands == ["collectives on 2", "horovod on 2"]
    check_picture(collectives.BENCHMARK, report, tmp_path)


HOROVOD = """
from pathlib import Path
from mpi4py import MPI
def init(): Path(__file__).with_name(f"called by {MPI.COMM_WORLD.Get_rank()}").touch()
def shutdown(): pass
def allreduce_(tensor, name):
    MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, tensor.numpy())
"""


def test_ranks_of_horovod_use_the_installed_one_and_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name that stands in for it, and that knows no more than what is called."""
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "__init__.py").touch()
    (tmp_path / "horovod" / "torch.py").write_text(HOROVOD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = run_ranks("horovod", 2, CollectivesOptions(ranks=(2,), bytes=(1 << 10,), seconds=0.05, most=4))
    assert len(job.results) == len(list((tmp_path / "horovod").glob("called by ?"))) == 2
    for rank in job.results:
        starts, ends = rank["1024"]["horovod"]
        assert len(starts) == len(ends) >= 4


def test_exchange_compares_bandwidths(replace_ranks: Callable[[Any, Results], None], tmp_path: Path) -> None:
    times = {
        "raw Sendrecv": lasting(0.01, 0.02),
        "lanes": lasting(0.0125, 0.025),
        "lanes with averaging": lasting(0.02, 0.04),
    }
    replace_ranks(exchange, lambda ranks: [times] * ranks)
    report = exchange.BENCHMARK.run(ExchangeOptions(bytes=60_000_000))
    raw, lanes, averaging = report.rows
    assert figure(raw, exchange.BANDWIDTH) == pytest.approx((6.0 + 3.0) / 2)
    assert raw.passes() == {}
    assert figure(lanes, exchange.RATIO) == pytest.approx(0.8)
    assert figure(averaging, exchange.RATIO) == pytest.approx(0.5)
    assert averaging.passes() == {exchange.RATIO: False}
    check_picture(exchange.BENCHMARK, report, tmp_path)


def test_memory_is_counted_beyond_a_plain_process_on_as_many_ranks(
    replace_ranks: Callable[[Any, Results], None], tmp_path: Path
) -> None:
    own = {"plain": 300e6, "initialized": 320e6, "adpsgd": 390e6, "sgp": 400e6}

    def results(ranks: int, variant: str, processes: int) -> list[Any]:
        assert processes == ranks
        return [{"parameters": 64e6, "own": own[variant] + 1e6 * ranks, "rss": own[variant] + 50e6}] * ranks

    replace_ranks(memory, results)
    report = memory.BENCHMARK.run(MemoryOptions(ranks=(2, 4), algorithms=("adpsgd", "sgp")))
    adpsgd, sgp = report.rows[2], report.rows[7]
    assert (adpsgd.cells[memory.RANKS], sgp.cells[memory.RANKS]) == ("2", "4")
    assert figure(adpsgd, memory.EXTRA) == pytest.approx(90.0)
    assert figure(adpsgd, memory.BEYOND) == pytest.approx(70.0)
    assert figure(sgp, memory.EXTRA_RSS) == pytest.approx(100.0)
    assert adpsgd.targets[memory.EXTRA].limit == 96.0
    assert (adpsgd.passes(), sgp.passes()) == ({memory.EXTRA: True}, {memory.EXTRA: False})
    assert all(not row.passes() for row in report.rows[:2])
    check_picture(memory.BENCHMARK, report, tmp_path)


def test_idle_judges_what_is_idle(replace_ranks: Callable[[Any, Results], None], tmp_path: Path) -> None:
    states = {"initialized": [0.01, 0.03], "adpsgd, before its first step": [0.03, 0.03], idle.EXCHANGING: [0.5, 0.5]}
    replace_ranks(idle, lambda ranks: [states] * ranks)
    report = idle.BENCHMARK.run(IdleOptions(ranks=2))
    assert [figure(row, idle.SHARE) for row in report.rows] == pytest.approx([2.0, 3.0, 50.0])
    assert [list(row.passes().values()) for row in report.rows] == [[True], [False], []]
    check_picture(idle.BENCHMARK, report, tmp_path)


def test_fusion_has_a_target_for_the_documented_set_only(
    replace_ranks: Callable[[Any, Results], None], tmp_path: Path
) -> None:
    def results(ranks: int) -> list[Any]:
        seconds = {"ours": 1.2e-3, "ours grouped": 1e-3, "raw": 2e-3, "raw fused": 5e-4, "gloo": 9e-3}
        ways = {way: lasting(length, length) for way, length in seconds.items()}
        return [{"64": ways, "200": ways}] * ranks

    replace_ranks(fusion, results)
    report = fusion.BENCHMARK.run(FusionOptions(ranks=(2, 4)))
    judged = {(row.cells[fusion.RANKS], row.cells[fusion.TENSORS]): row.passes() for row in report.rows}
    assert judged == {
        ("2", "64 x 4 KiB"): {},
        ("2", "200 x 4 KiB"): {},
        ("4", "64 x 4 KiB"): {fusion.COLUMNS["ours"]: True, fusion.COLUMNS["ours grouped"]: True},
        ("4", "200 x 4 KiB"): {},
    }
    assert figure(report.rows[0], fusion.COLUMNS["raw fused"]) == pytest.approx(0.5)
    check_picture(fusion.BENCHMARK, report, tmp_path)


def test_overlap_reports_what_a_step_does_not_see(
    replace_ranks: Callable[[Any, Results], None], tmp_path: Path
) -> None:
    """Of 40 ms of communication 10 are seen; a repetition that took twice as long in all says the same."""
    seconds = {"plain": [0.1, 0.2], "afterwards": [0.14, 0.28], "distributed": [0.11, 0.22]}
    replace_ranks(overlap, lambda ranks: [seconds] * ranks)
    report = overlap.BENCHMARK.run(OverlapOptions(ranks=(2,)))
    (row,) = report.rows
    assert row.cells[overlap.HIDDEN].values == pytest.approx([75.0, 75.0])  # type: ignore[union-attr]
    assert figure(row, overlap.SPEEDUP) == pytest.approx(14 / 11)
    assert row.passes() == {}
    check_picture(overlap.BENCHMARK, report, tmp_path)


def test_parity_puts_frameworks_under_each_other_and_judges_gossip_only(
    replace_ranks: Callable[[Any, Results], None], tmp_path: Path
) -> None:
    def results(ranks: int, framework: str) -> list[Any]:
        factor = {"torch": 1.05, "tensorflow": 1.2}[framework]
        record = {"batch": 32, "plain_seconds": [0.01, 0.02], "step_seconds": [0.01 * factor, 0.02 * factor]}
        record |= {"waited_share": [0.0, 0.1], "accuracy": 0.9, "megabytes": 1.0}
        return [[record | {"algorithm": algorithm} for algorithm in ("allreduce", "sgp")]] * ranks

    replace_ranks(parity, results)
    report = parity.BENCHMARK.run(ParityOptions(megabytes=(1.0,), algorithms=("allreduce", "sgp")))
    order = [(row.cells[parity.FRAMEWORK], row.cells[parity.ALGORITHM]) for row in report.rows]
    assert order == [(name, one) for one in ("allreduce", "sgp") for name in ("torch", "tensorflow")]
    assert [row.passes() for row in report.rows] == [{}, {}, {parity.RATIO: True}, {parity.RATIO: False}]
    assert report.rows[0].cells[parity.SAMPLES].values == pytest.approx([64 / 0.0105, 64 / 0.021])  # type: ignore[union-attr]
    check_picture(parity.BENCHMARK, report, tmp_path)


def test_keras_fit_judges_gossip_beside_the_bare_step_of_its_size(
    replace_ranks: Callable[[Any, Results], None], tmp_path: Path
) -> None:
    """The second repetition is disturbed as a whole: the ratios stay."""
    steps = {(1.0, "allreduce"): 0.06, (1.0, "sgp"): 0.054, (60.0, "allreduce"): 0.8, (60.0, "sgp"): 0.6}

    def results(ranks: int) -> list[Any]:
        def record(megabytes: float, algorithm: str) -> dict[str, Any]:
            bare, step = 0.05 if megabytes == 1.0 else 0.5, steps[megabytes, algorithm]
            spread = {"bare_seconds": [bare, 3 * bare], "step_seconds": [step, 3 * step], "waited_share": [0.1, 0.3]}
            return {"megabytes": megabytes, "algorithm": algorithm} | spread

        return [[record(*key) for key in steps]] * ranks

    replace_ranks(keras_fit, results)
    report = keras_fit.BENCHMARK.run(KerasFitOptions(algorithms=("allreduce", "sgp")))
    assert [row.cells[keras_fit.COMPUTE] for row in report.rows] == ["50", "50", "500", "500"]
    assert [row.passes() for row in report.rows] == [
        {}, {keras_fit.RATIO: True}, {}, {keras_fit.RATIO: False},
    ]  # fmt: skip
    assert report.rows[3].cells[keras_fit.RATIO].values == pytest.approx([1.2, 1.2])  # type: ignore[union-attr]
    assert figure(report.rows[3], keras_fit.MORE) == pytest.approx(200.0)
    assert figure(report.rows[0], keras_fit.WAITED) == pytest.approx(20.0)
    check_picture(keras_fit.BENCHMARK, report, tmp_path)
