"""What a straggler does to allreduce, and what it does to gossip: the same Horovod script, trained both ways.

    make demo

trains examples/digits_demo.py (a small convolutional network on scikit-learn's digits; with FRAMEWORK=tensorflow the
same in examples/digits_demo_tensorflow.py) with 4 workers, one of them slowed 10x, once with `--algorithm allreduce` and
once with `--algorithm adpsgd`; shows a table and writes demo-results/loss.png, demo-results/results.json and each run's
logs.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from _demo_plot import draw
from _demo_progress import shown_progress
from _demo_results import Result, as_json, explanation, summarize, table
from _demo_run import SCRIPTS, Plan, RunFailed, find_launcher, train
from rich.console import Console

ALGORITHMS = ("allreduce", "adpsgd")
EPOCHS = {"torch": 15, "tensorflow": 8}
"""So many fit into three minutes of a slow machine: TensorFlow's step takes twice as long."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=tuple(SCRIPTS), default="torch")
    parser.add_argument("--workers", type=int, default=4, help="processes; the last one is the slow one (default 4)")
    parser.add_argument("--slowdown", type=float, default=10.0, help="of the slow worker's steps (default 10)")
    parser.add_argument("--epochs", type=int, help="default 15; with TensorFlow 9")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--output", type=Path, default=Path("demo-results"), help="default demo-results")
    args = parser.parse_args(arguments)
    args.epochs = EPOCHS[args.framework] if args.epochs is None else args.epochs
    if args.workers < 2 or args.epochs < 1 or args.slowdown < 1:
        parser.error("needs at least 2 workers, 1 epoch and a slowdown of 1")
    return args


def train_once(console: Console, plan: Plan) -> Result:
    console.print(f"\n$ {shown_command(plan)}", markup=False, style="dim", soft_wrap=True)
    with shown_progress(console, plan) as watch:
        logs = train(plan, watch)
    return summarize(plan, logs)


def shown_command(plan: Plan) -> str:
    """The command as one types it here."""
    shown = {
        find_launcher(): "hvd-gossip-run",
        sys.executable: "python",
        str(plan.script): os.path.relpath(plan.script),
    }
    return shlex.join(shown.get(word, word) for word in plan.command())


def write_results(first: Result, second: Result, folder: Path) -> None:
    draw(first, second, folder / "loss.png")
    text = json.dumps([as_json(first), as_json(second)], indent=1)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; returns the exit code: 0, or 1 if a run failed."""
    args = parse_arguments(arguments)
    console = Console(highlight=False)
    plans = [
        Plan(
            name,
            args.output / name,
            args.workers,
            args.workers - 1,
            args.slowdown,
            args.epochs,
            args.seed,
            framework=args.framework,
        )
        for name in ALGORITHMS
    ]
    try:
        first, second = (train_once(console, plan) for plan in plans)
    except RunFailed as error:
        console.print(f"\n{error}", markup=False, style="red")
        return 1
    write_results(first, second, args.output)
    console.print("", table(first, second), "", explanation(first, second), "", sep="\n")
    console.print(f"The picture is {args.output / 'loss.png'}, the numbers are {args.output / 'results.json'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
