"""The demo: its pieces on logs written here, and whole runs under the launcher."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import demo
import numpy as np
import pytest
from _demo_plot import draw
from _demo_progress import fair_share, recent_loss, seconds_trained, shown_progress
from _demo_results import Result, as_json, comparison, explanation, heading, loss_curve, summarize, table
from _demo_run import TRAINING_IMAGES, Plan, RunFailed, WorkerLog, launched, train
from PIL import Image
from rich.console import Console

from hvd_gossip.observe.counters import Counters
from hvd_gossip.observe.metrics import MetricsWriter


def write_log(path: Path, *records: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def step(at: float, samples: int, loss: float) -> dict[str, Any]:
    return {"event": "step", "time": at, "samples": samples, "loss": loss}


def finished_run(folder: Path, algorithm: str, seconds: float, images: list[int], wait_share: float) -> Result:
    """Writes what a run of four workers leaves (a step of each worker at half time and at the end) and reads it."""
    plan = Plan(algorithm, folder / algorithm, epochs=2)
    for worker, count in enumerate(images):
        write_log(
            plan.log_path(worker),
            {"event": "start", "time": 1000.0 + worker / 10},
            step(1000 + seconds / 2, count // 2, 2.0),
            step(1000 + seconds, count - count // 2, 1.0),
            {"event": "end", "time": 1000 + seconds - worker / 10},
            {"event": "result", "time": 1000 + seconds + 1, "accuracy": 0.9876, "consensus_distance": 0.0123},
        )
        metrics = MetricsWriter(plan.metrics_folder, worker)
        waited = 0.0 if worker == plan.slow_worker else wait_share
        metrics.step(1.0, 1.0 - waited, waited, Counters())
        metrics.close(Counters())
    logs = [WorkerLog(plan.log_path(worker)) for worker in range(plan.workers)]
    for log in logs:
        log.read()
    return summarize(plan, logs)


@pytest.fixture
def results(tmp_path: Path) -> tuple[Result, Result]:
    return (
        finished_run(tmp_path, "allreduce", 40.0, [720, 720, 720, 720], 0.9),
        finished_run(tmp_path, "adpsgd", 8.0, [930, 930, 930, 90], 0.002),
    )


def rendered(*what: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(*what)
    return stream.getvalue()


def test_result_is_what_the_logs_say(results: tuple[Result, Result]) -> None:
    first, second = results
    assert (first.seconds, second.seconds) == (40.0, 8.0)
    assert second.images == [930, 930, 930, 90]
    assert second.images_per_second == 2880 / 8
    assert first.fast_waited == pytest.approx(0.9)
    assert (second.accuracy, second.consensus_distance) == (0.9876, 0.0123)


def test_loss_curve_is_the_mean_of_each_epochs_images(results: tuple[Result, Result]) -> None:
    times, epochs, losses = results[0].times, results[0].epochs, results[0].losses
    assert times.tolist() == [20.0, 40.0]
    assert epochs == pytest.approx([0.625, 1.625])  # four steps each, a quarter epoch apart
    assert losses.tolist() == [2.0, 1.0]


def test_loss_curve_weighs_by_images_and_goes_by_time_across_workers() -> None:
    slow, fast = WorkerLog(Path("slow")), WorkerLog(Path("fast"))
    slow.steps = [step(13.0, 480, 4.0)]
    fast.steps = [step(11.0, 480, 1.0), step(12.0, 480, 1.0), step(14.0, TRAINING_IMAGES, 0.5)]
    times, epochs, losses = loss_curve([slow, fast], start=10.0)
    assert times == pytest.approx([2.0, 4.0])
    assert losses == pytest.approx([2.0, 0.5])
    assert epochs == pytest.approx([2 / 3, 2.0])


def test_table_has_both_runs_and_their_ratio(results: tuple[Result, Result]) -> None:
    text = rendered(table(*results))
    assert heading(results[0].plan) == "2 epochs of the digits, 4 workers, one of them 10x slower"
    rows = {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.split("│")[1:-1]] for line in
            text.splitlines() if "│" in line)}  # fmt: skip
    assert rows == {
        "training time": ["40.0 s", "8.0 s", "0.20"],
        "images/s": ["72", "360", "5.00"],
        "fast workers waited": ["90.0%", "0.2%", ""],
        "slow worker's share of the images": ["25.0%", "3.1%", ""],
        "test accuracy of the averaged model": ["98.8%", "98.8%", ""],
        "consensus distance": ["0.012", "0.012", ""],
    }


def test_explanation_says_the_measured_numbers(results: tuple[Result, Result]) -> None:
    text = explanation(*results)
    assert "\n" not in text
    for fact in ("worker 3 takes 10 times", "90% of their time", "0.2% of the time", "3.1% of the images instead of 25.0%",
                 "took 8.0 s instead of 40.0 s: 5.0 times as fast", "98.8% of the test images"):  # fmt: skip
        assert fact in text


def test_comparison_does_not_flatter(results: tuple[Result, Result]) -> None:
    assert comparison(*results) == "5.0 times as fast"
    assert comparison(*reversed(results)) == "5.0 times as slow"


def test_json_holds_numbers_that_can_be_plotted_again(results: tuple[Result, Result]) -> None:
    read = json.loads(json.dumps(as_json(results[1])))
    assert read["algorithm"] == "adpsgd"
    assert read["images_by_worker"] == [930, 930, 930, 90]
    assert read["curve"]["loss"] == results[1].losses.tolist()


def test_picture_shows_both_curves_in_their_colours(results: tuple[Result, Result], tmp_path: Path) -> None:
    draw(*results, tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert picture.size == (1760, 960)
    for colour in ((0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)):
        assert (pixels == colour).all(axis=1).sum() > 500


def test_log_is_read_as_it_grows(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "logs" / "worker-0.jsonl")
    log.read()
    assert log.images == 0
    write_log(log.path, {"event": "start", "time": 1.0}, step(2.0, 30, 1.5))
    with log.path.open("a") as file:
        file.write('{"event": "step", "ti')
    log.read()
    assert (log.images, len(log.steps), list(log.events)) == (30, 1, ["start"])
    with log.path.open("a") as file:
        file.write('me": 3.0, "samples": 12, "loss": 1.0}\n')
    log.read()
    log.read()
    assert (log.images, log.steps[-1]["loss"]) == (42, 1.0)


def test_command_is_one_a_newcomer_can_type() -> None:
    words = Plan("adpsgd", Path("out"), epochs=3, seed=5).command()
    text = " ".join(words)
    assert words[0].endswith("hvd-gossip-run")
    for part in ("-np 4", "--algorithm adpsgd", "--inject slow=3:10", "--metrics-dir out/metrics", "--epochs 3"):
        assert part in text
    assert "--share-work" in words
    assert "--share-work" not in Plan("allreduce", Path("out")).command()


def test_command_is_shown_without_the_paths_of_this_machine() -> None:
    text = demo.shown_command(Plan("adpsgd", Path("out")))
    assert text.startswith("hvd-gossip-run -np 4 --algorithm adpsgd ")
    assert " python " in text
    assert str(Path(sys.executable).parent) not in text


def test_two_cores_have_the_batches_of_both_runs_done_in_time() -> None:
    """3 minutes less 50 s in which processes start; 45 ms is a batch of 30 images on a core of 2026-11-27."""
    plan = Plan("allreduce", Path(), epochs=demo.parse_arguments([]).epochs)
    batches = plan.epochs * TRAINING_IMAGES / 30
    one_after_another = batches / plan.workers * plan.slowdown  # allreduce: all wait for the straggler's
    assert (one_after_another + batches / 2) * 0.045 < 180 - 50


def test_fair_share_is_full_speed_workers_part() -> None:
    assert fair_share(Plan("allreduce", Path(), epochs=2)) == TRAINING_IMAGES / 2
    assert fair_share(Plan("adpsgd", Path(), epochs=31)) == pytest.approx(TRAINING_IMAGES * 10)


def progress_logs(images: int) -> list[WorkerLog]:
    return [WorkerLog(Path(), images, [step(1.0, images, 0.25)]) for _ in range(4)]


def test_recent_loss_is_none_before_the_first_step() -> None:
    assert recent_loss([WorkerLog(Path())]) is None
    assert recent_loss(progress_logs(1)) == 0.25


def test_recent_loss_forgets_what_a_slow_worker_said_long_ago() -> None:
    slow, fast = WorkerLog(Path()), WorkerLog(Path())
    slow.steps = [step(1.0, 30, 9.0)]
    fast.steps = [step(float(at), 30, 0.5) for at in range(2, 100)]
    assert recent_loss([slow, fast]) == 0.5


def test_seconds_trained_span_all_workers() -> None:
    early, late = WorkerLog(Path()), WorkerLog(Path())
    assert seconds_trained([early, late]) == 0
    early.steps, late.steps = [step(10.0, 30, 1.0), step(11.0, 30, 1.0)], [step(12.5, 30, 1.0)]
    assert seconds_trained([early, late]) == 2.5


def test_progress_without_a_terminal_is_a_line_a_tenth() -> None:
    stream = io.StringIO()
    plan = Plan("adpsgd", Path(), epochs=4)
    with shown_progress(Console(file=stream, width=200), plan) as watch:
        for images in (0, 10, 144, 145, 720, 1440):
            watch(progress_logs(images))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "adpsgd: starting 4 workers"
    assert [line.split("%")[0].split()[-1] for line in lines[1:]] == ["10", "50", "100"]
    assert lines[2].endswith("epoch  2.0 of 4, loss 0.250, 0 s, images by worker: 720, 720, 720, 720")
    assert "\x1b" not in stream.getvalue()


def test_progress_on_a_terminal_has_a_bar_for_the_run_and_for_every_worker() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=True, _environ={"TERM": "xterm"})
    with shown_progress(console, Plan("adpsgd", Path(), epochs=4)) as watch:
        watch(progress_logs(720))
    final = stream.getvalue()
    for text in ("adpsgd", "worker 0", "worker 3 (10x slower)", "epoch  2.0 of 4, loss 0.250, 0 s", "1 steps"):
        assert text in final


def test_each_framework_trains_its_own_script() -> None:
    for framework, name in (("torch", "digits_demo.py"), ("tensorflow", "digits_demo_tensorflow.py")):
        plan = Plan("adpsgd", Path("out"), framework=framework)
        assert plan.script.is_file()
        assert f"python {os.path.relpath(plan.script)}" in demo.shown_command(plan)
        assert plan.script.name == name


@pytest.mark.parametrize(
    "arguments", [["--workers", "1"], ["--epochs", "0"], ["--slowdown", "0.5"], ["--framework", "x"]]
)
def test_impossible_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        demo.main(arguments)
    assert "usage:" in capsys.readouterr().err


def test_child_is_stopped_when_its_block_fails(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        launched([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "output") as process,
    ):
        raise KeyboardInterrupt
    assert process.returncode == -15


@pytest.mark.timeout(180)
def test_failed_run_shows_the_end_of_its_output(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"allreduce ended with exit code [1-9](.|\n)*epochs"):
        train(Plan("allreduce", tmp_path / "run", workers=2, slow_worker=1, epochs="many"))  # type: ignore[arg-type]


@pytest.mark.timeout(180)
def test_run_without_progress_is_given_up(tmp_path: Path) -> None:
    plan = Plan("allreduce", tmp_path / "run", workers=2, slow_worker=1, epochs=100_000, timeout=0.5)
    with pytest.raises(RunFailed, match=r"no worker moved for 0\.5 s"):
        train(plan)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("framework", ["torch", pytest.param("tensorflow", marks=pytest.mark.slow)])
def test_short_demo_trains_both_ways(framework: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(framework)
    output = tmp_path / "results"
    arguments = [
        "--workers",
        "2",
        "--slowdown",
        "2",
        "--epochs",
        "1",
        "--output",
        str(output),
        "--framework",
        framework,
    ]
    assert demo.main(arguments) == 0, capsys.readouterr().out
    runs = json.loads((output / "results.json").read_text())
    assert [run["algorithm"] for run in runs] == ["allreduce", "adpsgd"]
    assert [sum(run["images_by_worker"]) for run in runs] == [TRAINING_IMAGES, TRAINING_IMAGES]
    assert runs[0]["consensus_distance"] == 0
    assert (output / "loss.png").stat().st_size > 10_000
    assert "What one sees" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_full_demo_shows_what_it_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--output", str(tmp_path)]) == 0, capsys.readouterr().out
    allreduce, adpsgd = json.loads((tmp_path / "results.json").read_text())
    assert min(allreduce["test_accuracy"], adpsgd["test_accuracy"]) > 0.96
    assert adpsgd["images_by_worker"][3] < min(adpsgd["images_by_worker"][:3]) / 2
    assert sum(adpsgd["images_by_worker"]) == demo.EPOCHS["torch"] * TRAINING_IMAGES
