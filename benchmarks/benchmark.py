"""What a benchmark's module consists of, and its command line when it runs alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from matplotlib.figure import Figure
from rich.console import Console

from benchmarks import options as knobs
from benchmarks import plots
from benchmarks.job import JobFailed
from benchmarks.machine import default_folder, describe_machine
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.tables import markdown_report, terminal_table

O = TypeVar("O", bound=Options)  # noqa: E741

WIDTH = 180


@dataclass(frozen=True)
class Benchmark(Generic[O]):
    """One benchmark.

    Attributes:
        name: of its module in `benchmarks`.
        options: its knobs' type.
        measure: carries it out; `settings` and `seconds` of the report are filled in by `run`.
        draw: its picture.
        framework: whose benchmarks it belongs to.
    """

    name: str
    options: type[O]
    measure: Callable[[O], Report]
    draw: Callable[[Report], Figure]
    framework: str = "torch"

    def run(self, options: O) -> Report:
        """The report.

        Raises:
            JobFailed: ranks failed or took too long.
        """
        start = time.monotonic()
        report = self.measure(options)
        return dataclasses.replace(report, settings=dataclasses.asdict(options), seconds=time.monotonic() - start)

    def draw_into(self, report: Report, folder: Path) -> None:
        """Writes the picture, `<name>.png`."""
        plots.save(self.draw(report), folder / f"{self.name}.png")

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """The command line of the module; returns the exit code: 1 if the ranks failed. A missed target is no failure."""
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=self.options.__doc__)
        add_common_arguments(parser)
        knobs.add_arguments(parser, self.options)
        namespace = parser.parse_args(arguments)
        console = make_console()
        machine = describe_machine()
        try:
            report = self.run(knobs.from_arguments(self.options, namespace))
        except JobFailed as error:
            console.print(str(error), markup=False, style="red")
            return 1
        console.print(terminal_table(report))
        folder = namespace.output or default_folder(namespace.quick)
        self._write(report, machine, folder)
        console.print(f"Written to {folder}: {self.name}.json, .md, .png", markup=False)
        return 0

    def _write(self, report: Report, machine: dict[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine, "benchmarks": [report.to_json()]}, indent=1)
        (folder / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")
        (folder / f"{self.name}.md").write_text(markdown_report(report), encoding="utf-8")
        self.draw_into(report, folder)


def make_console() -> Console:
    """Where tables go: as wide as they are, where that is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every benchmark and `benchmarks.run` have."""
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; the figures mean nothing")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: benchmarks/results/DATE-MACHINE CLASS")
