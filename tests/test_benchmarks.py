"""Whole benchmarks on real processes, in their quick variants; what figures come out never decides a test."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run, straggler
from benchmarks.exchange import BENCHMARK as EXCHANGE
from benchmarks.job import JobFailed
from benchmarks.options import MemoryOptions, Options, quick
from benchmarks.run import BENCHMARKS


def figures(document: dict[str, Any]) -> list[float]:
    """All single measurements in results.json."""
    cells = [cell for one in document["benchmarks"] for row in one["rows"] for cell in row["cells"].values()]
    return [value for cell in cells if isinstance(cell, dict) for value in cell["values"]]


def test_a_benchmark_alone_prints_its_table_and_writes_its_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert EXCHANGE.main(["--quick", "--bytes", "1000000", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Exchange: 1 MB of float32 each way between 2 ranks" in printed
    assert "lanes with averaging" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"exchange.json", "exchange.md", "exchange.png"}
    document = json.loads((tmp_path / "exchange.json").read_text())
    assert document["machine"]["cores"] >= 1
    assert document["benchmarks"][0]["settings"]["bytes"] == 1_000_000
    assert len(figures(document)) == 4 * (3 + 3 + 2)
    assert all(math.isfinite(value) and value > 0 for value in figures(document))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_benchmarks_run_and_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorflow")
    assert run.main(["--quick", "--only", *BENCHMARKS, "--output", str(tmp_path)]) == 0
    assert "targets met." in capsys.readouterr().out
    document = json.loads((tmp_path / "results.json").read_text())
    assert [one["name"] for one in document["benchmarks"]] == list(BENCHMARKS)
    assert document["failures"] == {}
    assert all(math.isfinite(value) for value in figures(document))
    text = (tmp_path / "README.md").read_text()
    for report in document["benchmarks"]:
        assert f"## {report['title']}" in text
        assert (tmp_path / f"{report['name']}.png").stat().st_size > 5000


def test_each_framework_has_its_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def note(_: object, benchmarks: Any, *more: object) -> tuple[list[Any], dict[str, str]]:
        ran.extend(benchmark.name for benchmark in benchmarks)
        return [], {}

    monkeypatch.setattr(run, "_run_all", note)
    assert run.main(["--framework", "tensorflow", "--output", str(tmp_path)]) == 0
    assert ran == ["keras_fit", "parity"]
    assert run.main(["--output", str(tmp_path)]) == 0
    assert set(ran) == set(BENCHMARKS)
    assert len(ran) == len(BENCHMARKS)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_benchmark_of_keras_fit_measures_both_sides(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    assert BENCHMARKS["keras_fit"].main(["--quick", "--output", str(tmp_path)]) == 0
    (report,) = json.loads((tmp_path / "keras_fit.json").read_text())["benchmarks"]
    assert [row["cells"]["algorithm"] for row in report["rows"]] == ["allreduce", "adpsgd"]
    for row in report["rows"]:
        for column in ("step (ms)", "bare step (ms)"):
            assert len(row["cells"][column]["values"]) == 2
            assert min(row["cells"][column]["values"]) > 10.0, "compute is part of the step"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_of_gossip_holds_one_more_copy_of_the_parameters() -> None:
    """Not a timing: what a process allocates is the same in every run, but for what allocators round up."""
    options = MemoryOptions(ranks=(2,), megabytes=40.0, algorithms=("dpsgd",), steps=3)
    row = BENCHMARKS["memory"].run(options).rows[-1]
    more = row.cells["more than initialized (MB)"]
    assert 39 <= more.median <= 40 + 16  # type: ignore[union-attr]


def test_a_benchmark_that_fails_is_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise JobFailed("rank 1 has had enough\nand more")

    monkeypatch.setattr(straggler, "run_ranks", fail)
    assert run.main(["--quick", "--only", "straggler", "exchange", "--output", str(tmp_path)]) == 1
    assert "straggler failed: rank 1 has had enough" in capsys.readouterr().out
    document = json.loads((tmp_path / "results.json").read_text())
    assert [one["name"] for one in document["benchmarks"]] == ["exchange"]
    assert document["failures"]["straggler"].startswith("rank 1 has had enough")
    assert "**straggler failed**" in (tmp_path / "README.md").read_text()


def test_a_failed_benchmark_alone_exits_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise JobFailed("[ranks] failed")

    monkeypatch.setattr(straggler, "run_ranks", fail)
    assert straggler.BENCHMARK.main(["--output", str(tmp_path)]) == 1
    assert "[ranks] failed" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_unknown_benchmarks_are_refused_with_the_names_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--only", "speed"])
    printed = capsys.readouterr().err
    assert all(name in printed for name in BENCHMARKS)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_benchmark_has_a_module_of_its_name_and_a_quick_variant(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert isinstance(quick(benchmark.options), Options)
    assert Path("benchmarks", f"{name}.py") in [
        path.relative_to(Path(run.__file__).parent.parent) for path in Path(run.__file__).parent.glob("*.py")
    ]
