"""Our allreduce beside MPI's own, gloo's, and Horovod's where one is installed."""

from __future__ import annotations

import sys
from importlib import metadata

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.benchmark import Benchmark
from benchmarks.job import Job, run_ranks
from benchmarks.options import CollectivesOptions
from benchmarks.report import Cell, Report, Row, Target
from benchmarks.spread import Spread
from benchmarks.timing import spans

RANKS, SIZE, FORM = "ranks", "size", "result"
OURS, RAW, GLOO, MORE, RATIO = "ours (ms)", "raw (ms)", "gloo (ms)", "ours − raw (µs)", "ours ÷ raw"  # noqa: RUF001
HOROVOD, TO_HOROVOD = "Horovod (ms)", "ours ÷ Horovod"
FORMS = {"in place": ("ours in place", "raw in place"), "new tensor": ("ours", "raw")}
SMALL, LARGE = 1 << 20, 60 << 20
"""Up to SMALL bytes the target is a difference, from there on a ratio, and a lower one from LARGE on."""
SMALL_LIMIT_US, RATIO_LIMIT, LARGE_RATIO_LIMIT = 200.0, 1.0, 0.6
SMALLEST, SMALLEST_LIMIT_MS = 1 << 10, 0.4
"""Up to SMALLEST bytes the time itself has a target too."""
HOROVOD_LIMIT = 0.5
"""From LARGE on, over Horovod's time."""


def measure(options: CollectivesOptions) -> Report:
    """Times of allreduce by number of ranks, size and form."""
    jobs = {ranks: run_ranks("collectives", ranks, options) for ranks in options.ranks}
    version = horovod_version()
    theirs = {ranks: run_ranks("horovod", ranks, options) for ranks in options.ranks} if version else {}
    rows = [
        _row(ranks, size, form, _times(job, size) | (_times(theirs[ranks], size) if theirs else {}))
        for ranks, job in jobs.items()
        for size in options.bytes
        for form in FORMS
    ]
    return Report(
        name="collectives",
        title="Allreduce of float32 by hvd.allreduce, mpi4py's Allreduce and torch.distributed's gloo",
        columns=[RANKS, SIZE, FORM, OURS, RAW, GLOO, MORE, RATIO, *([HOROVOD, TO_HOROVOD] if version else [])],
        rows=rows,
        notes=[
            "A repetition is timed from when the last rank calls to when the last one returns; all ways take turns.",
            "in place: hvd.allreduce_(t) beside Allreduce(MPI.IN_PLACE, a). new tensor: hvd.allreduce(t) beside "
            "Allreduce(a, numpy.empty_like(a)). gloo works in place only.",
            f"ours averages, {'as Horovod does; ' if version else ''}the others add up.",
            f"Horovod {version}, in place, in processes of its own."
            if version
            else "No Horovod is installed beside this Python; where one is, its times are measured too.",
        ],
        commands=[job.command for job in (*jobs.values(), *theirs.values())],
    )


def horovod_version() -> str | None:
    """Of the Horovod that is installed beside this Python, or None. It must have been built with PyTorch and MPI."""
    try:
        return metadata.version("horovod")
    except metadata.PackageNotFoundError:
        return None


def _times(job: Job, size: int) -> dict[str, Spread]:
    """By way, seconds."""
    ways = job.results[0][str(size)]
    return {way: spans([rank[str(size)][way] for rank in job.results]) for way in ways}


def _row(ranks: int, size: int, form: str, times: dict[str, Spread]) -> Row:
    ours, raw = (times[way] for way in FORMS[form])
    cells: dict[str, Cell] = {
        RANKS: str(ranks),
        SIZE: show_bytes(size),
        FORM: form,
        OURS: ours * 1e3,
        RAW: raw * 1e3,
        GLOO: times["gloo"] * 1e3,
        MORE: (ours - raw) * 1e6,
        RATIO: ours / raw,
    }
    targets = {MORE: Target(SMALL_LIMIT_US)}
    if size <= SMALLEST:
        targets[OURS] = Target(SMALLEST_LIMIT_MS)
    if size > SMALL:
        targets = {RATIO: Target(LARGE_RATIO_LIMIT if size >= LARGE else RATIO_LIMIT)}
    if "horovod" in times and form == "in place":
        cells |= {HOROVOD: times["horovod"] * 1e3, TO_HOROVOD: ours.median / times["horovod"].median}
        if size >= LARGE:
            targets[TO_HOROVOD] = Target(HOROVOD_LIMIT)
    return Row(cells, targets)


def show_bytes(size: int) -> str:
    """1024: 1 KiB; for whole numbers of the unit."""
    unit, name = (1 << 20, "MiB") if size >= 1 << 20 else (1 << 10, "KiB")
    return f"{size / unit:g} {name}"


def draw(report: Report) -> Figure:
    """Time against size, one pair of axes a number of ranks; in place only, which all three can do."""
    counts = list(dict.fromkeys(str(row.cells[RANKS]) for row in report.rows))
    figure, all_axes = plots.new_figure(len(counts), width=5.5 * len(counts))
    for axes, count in zip(all_axes, counts, strict=True):
        _draw_ranks(axes, [row for row in report.rows if row.cells[RANKS] == count and row.cells[FORM] == "in place"])
        axes.set_title(f"Allreduce in place, {count} ranks")
    all_axes[0].legend(loc="upper left")
    return figure


def _draw_ranks(axes: Axes, rows: list[Row]) -> None:
    across = list(range(len(rows)))
    lines = ((GLOO, "gloo", plots.GREEN, "^"), (RAW, "MPI's own", plots.ORANGE, "s"), (OURS, "ours", plots.BLUE, "o"))
    for column, label, colour, marker in lines:
        spreads = [cell for row in rows if isinstance(cell := row.cells[column], Spread)]
        plots.draw_line(axes, across, spreads, label, colour, marker)
    axes.plot(across, [_limit_ms(row) for row in rows], "_", color=plots.INK, markersize=16, label="target for ours")
    axes.set_yscale("log")
    axes.set_xticks(across, [str(row.cells[SIZE]) for row in rows])
    axes.set_xlabel("size of the tensor on each rank")
    axes.set_ylabel("time (ms), median and quartiles")
    axes.yaxis.set_major_formatter("{x:g}")


def _limit_ms(row: Row) -> float:
    raw = row.cells[RAW]
    assert isinstance(raw, Spread)
    if MORE in row.targets:
        return raw.median + 1e-3 * row.targets[MORE].limit
    return raw.median * row.targets[RATIO].limit


BENCHMARK = Benchmark("collectives", CollectivesOptions, measure, draw)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
