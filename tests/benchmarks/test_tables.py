"""Tables for people."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.report import Report, Row, Target
from benchmarks.spread import Spread
from benchmarks.tables import markdown_document, markdown_report, summary, terminal_table


@pytest.fixture
def report() -> Report:
    rows = [
        Row({"way": "plain", "time (ms)": Spread.of([1.5])}),
        Row({"way": "a|b", "time (ms)": 5.0, "÷ plain": 3.0}, {"÷ plain": Target(2.0)}),
        Row({"way": "fast", "time (ms)": 1.0, "÷ plain": 0.5}, {"÷ plain": Target(2.0)}),
    ]
    return Report(
        "exchange", "Some title", ["way", "time (ms)", "÷ plain"], rows, ["One note.", "Another."],
        {"bytes": 60, "sizes": (1.0, 2.5)}, ["first command", "second command"], 12.3,
    )  # fmt: skip


def test_the_terminal_shows_figures_verdicts_and_notes(report: Report) -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(terminal_table(report))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("Some title", "a|b", "5.00", "target for ÷ plain", "≤ 2", "MISSED", "pass", "One note.", "Another."):
        assert word in text


def test_markdown_is_one_table_with_all_that_it_takes_to_repeat_it(report: Report) -> None:
    lines = markdown_report(report).splitlines()
    assert lines[0] == "## Some title"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 5
    assert table[3] == "| a\\|b | 5.00 | 3.00 | ≤ 2 | MISSED |"
    assert {line.replace("\\|", "").count("|") for line in table} == {6}
    assert "`python -m benchmarks.exchange` (12 s) with bytes=60, sizes=1,2.5; launched:" in lines
    assert lines[-2:] == ["    first command", "    second command"]
    assert "- Another." in lines


def test_the_document_counts_what_was_met_and_names_what_failed(report: Report) -> None:
    text = markdown_document({"cores": 2, "mpi": None}, [report], {"idle": "ranks failed\nwith many lines"})
    assert summary([report]) == "1 of 2 targets met."
    assert "1 of 2 targets met." in text
    assert "- cores: 2" in text
    assert "- mpi" not in text
    assert "- **idle failed**: ranks failed\n" in text
    assert "## Some title" in text
