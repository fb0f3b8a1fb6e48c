"""Reports for people: tables on a terminal (rich) and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.report import Report

STYLES = {"pass": "green", "MISSED": "bold red"}


def terminal_table(report: Report) -> Table:
    """The table of a report, its notes below."""
    table = Table(title=report.title, title_justify="left", title_style="bold", caption_justify="left")
    table.caption = "\n".join(report.notes)
    for number, heading in enumerate(report.headings()):
        table.add_column(heading, justify="left" if number == 0 else "right", overflow="fold")
    for line in report.lines():
        table.add_row(*line[:-1], _coloured(line[-1]))
    return table


def markdown_report(report: Report) -> str:
    """The report as a section of Markdown."""
    lines = [f"## {report.title}", "", *_markdown_table(report.headings(), report.lines())]
    lines += ["", *(f"- {note}" for note in report.notes)] if report.notes else []
    settings = ", ".join(f"{name}={_plain(value)}" for name, value in report.settings.items())
    lines += ["", f"`python -m benchmarks.{report.name}` ({report.seconds:.0f} s) with {settings}; launched:", ""]
    lines += [f"    {command}" for command in report.commands]
    return "\n".join(lines) + "\n"


def markdown_document(machine: Mapping[str, Any], reports: Sequence[Report], failures: Mapping[str, str]) -> str:
    """All reports, after a summary.

    Args:
        machine: what they ran on.
        failures: benchmarks that could not be carried out, with what they said.
    """
    lines = ["# Benchmarks", "", f"{summary(reports)} Figures are medians (first quartile…third quartile), and "]
    lines[-1] += (
        "baselines are of the same run; [docs/benchmarks.md](../../../docs/benchmarks.md) says what is measured."
    )
    lines.append("")
    lines += [f"- {name}: {value}" for name, value in machine.items() if value is not None]
    lines += [f"- **{name} failed**: {text.splitlines()[0]}" for name, text in failures.items()]
    return "\n".join([*lines, "", *(markdown_report(report) for report in reports)])


def summary(reports: Sequence[Report]) -> str:
    """How many targets are met."""
    judged = [passed for report in reports for row in report.rows for passed in row.passes().values()]
    return f"{sum(judged)} of {len(judged)} targets met."


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _coloured(verdict: str) -> Text:
    text = Text(verdict)
    for word, style in STYLES.items():
        text.highlight_words([word], style)
    return text


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
