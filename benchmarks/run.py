"""All benchmarks, one after the other; `make bench`.

Prints each table as soon as it is there, and writes results.json, README.md (the tables) and a PNG a benchmark.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import collectives, exchange, fusion, idle, keras_fit, memory, overhead, overlap, parity, straggler
from benchmarks.benchmark import Benchmark, add_common_arguments, make_console
from benchmarks.job import JobFailed
from benchmarks.machine import default_folder, describe_machine
from benchmarks.options import quick
from benchmarks.report import Report
from benchmarks.tables import markdown_document, summary, terminal_table

BENCHMARKS: dict[str, Benchmark[Any]] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (straggler, overhead, collectives, fusion, overlap, exchange, memory, idle, keras_fit, parity)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 1 if a benchmark could not be carried out.

    A missed target is a result, not a failure.
    """
    args = _parse(arguments)
    console = make_console()
    machine = describe_machine()
    folder: Path = args.output or default_folder(args.quick)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    names = args.only or [name for name, one in BENCHMARKS.items() if one.framework == args.framework]
    reports, failures = _run_all(console, [BENCHMARKS[name] for name in names], args.quick, folder)
    machine["minutes"] = round((time.monotonic() - started) / 60, 1)
    _write(folder, machine, reports, failures)
    console.print(f"\n{summary(reports)} Took {machine['minutes']:g} minutes. Results: {folder}", markup=False)
    return 1 if failures else 0


def _run_all(
    console: Console, benchmarks: Sequence[Benchmark[Any]], is_quick: bool, folder: Path
) -> tuple[list[Report], dict[str, str]]:
    """The reports, and what the benchmarks said that failed: the others go on."""
    reports, failures = [], {}
    for benchmark in benchmarks:
        options = quick(benchmark.options) if is_quick else benchmark.options()
        try:
            with console.status(f"{benchmark.name}: {(benchmark.options.__doc__ or '').strip()}"):
                report = benchmark.run(options)
        except JobFailed as error:
            failures[benchmark.name] = str(error)
            console.print(f"\n{benchmark.name} failed: {error}", markup=False, style="red")
            continue
        reports.append(report)
        console.print("", terminal_table(report), f"({report.seconds:.0f} s)", sep="\n")
        benchmark.draw_into(report, folder)
    return reports, failures


def _write(folder: Path, machine: Mapping[str, Any], reports: Sequence[Report], failures: Mapping[str, str]) -> None:
    document = {
        "machine": machine,
        "benchmarks": [report.to_json() for report in reports],
        "failures": failures,
    }
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(markdown_document(machine, reports, failures), encoding="utf-8")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Runs the benchmarks, PyTorch's in under 10 minutes on 2 idle cores. Each is also a module of "
        "its own with more flags: python -m benchmarks.straggler --help.",
    )
    add_common_arguments(parser)
    parser.add_argument(
        "--framework", choices=sorted({one.framework for one in BENCHMARKS.values()}), default="torch",
        help="whose benchmarks to run (default torch)",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", choices=list(BENCHMARKS), metavar="NAME",
        help=f"some of {', '.join(BENCHMARKS)}",
    )  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
