"""What a benchmark found: a table whose rows are judged by their targets, and what it takes to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from benchmarks.spread import Spread

Cell = Union[str, float, Spread, None]  # noqa: UP007  (evaluated at import, on Python 3.10 too)
"""Text, a number that was computed, repeated measurements, or nothing."""
NOTHING = "–"  # noqa: RUF001


@dataclass(frozen=True)
class Target:
    """What a figure must not pass.

    Attributes:
        limit: in the unit of the column that is judged.
        sense: "at most" or "at least".
    """

    limit: float
    sense: str = "at most"

    def __post_init__(self) -> None:
        if self.sense not in ("at most", "at least"):
            raise ValueError(f"sense must be 'at most' or 'at least', not {self.sense!r}")

    def is_met(self, value: float) -> bool:
        return value <= self.limit if self.sense == "at most" else value >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.sense == 'at most' else '≥'} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        cells: by the title of their column; missing ones are empty.
        targets: by the column whose median they judge.
    """

    cells: Mapping[str, Cell]
    targets: Mapping[str, Target] = field(default_factory=dict)

    def passes(self) -> dict[str, bool]:
        """By column, whether it meets its target."""
        return {column: target.is_met(self._figure(column)) for column, target in self.targets.items()}

    def _figure(self, column: str) -> float:
        cell = self.cells[column]
        if isinstance(cell, Spread):
            return cell.median
        if isinstance(cell, float):
            return cell
        raise TypeError(f"column {column!r} has a target but holds {cell!r}")


@dataclass
class Report:
    """One benchmark's outcome.

    Attributes:
        name: of the benchmark's module.
        title: a line that says what was measured.
        columns: titles, with their units, in order.
        rows: the table.
        notes: what one must know to read it.
        settings: the benchmark's knobs.
        commands: what was launched.
        seconds: how long it took.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def missed(self) -> list[Row]:
        """Rows that do not meet all their targets."""
        return [row for row in self.rows if not all(row.passes().values())]

    def headings(self) -> list[str]:
        """The table's columns, and those of the targets."""
        judged = self._judged()
        return [*self.columns, f"target for {judged}" if judged else "target", "verdict"]

    def lines(self) -> list[list[str]]:
        """The table's cells as text."""
        return [
            [
                *(show(row.cells.get(column)) for column in self.columns),
                *_show_targets(row, named=self._judged() is None),
            ]
            for row in self.rows
        ]

    def _judged(self) -> str | None:
        """The one column that all targets are for, if there is one."""
        judged = {column for row in self.rows for column in row.targets}
        return judged.pop() if len(judged) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """Everything, with all single measurements."""
        return {
            "name": self.name,
            "title": self.title,
            "settings": dict(self.settings),
            "commands": list(self.commands),
            "seconds": self.seconds,
            "notes": list(self.notes),
            "rows": [_row_to_json(row) for row in self.rows],
        }


def show(cell: Cell) -> str:
    """A cell as text: a number to three digits, measurements as their median and quartiles."""
    if isinstance(cell, Spread):
        around = f" ({_number(cell.low)}…{_number(cell.high)})" if len(cell.values) > 1 else ""
        return _number(cell.median) + around
    if cell is None:
        return NOTHING
    return cell if isinstance(cell, str) else _number(cell)


def _number(value: float) -> str:
    """Three significant digits, four from 1 to 2 (ratios near 1 are told apart), no exponent."""
    if value == 0:
        return "0"
    digits = 4 if 0.995 <= abs(value) < 2 else 3
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - _exponent(rounded))
    return f"{rounded:,.{decimals}f}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def _show_targets(row: Row, named: bool) -> list[str]:
    if not row.targets:
        return [NOTHING, NOTHING]
    targets = (f"{column} {target}" if named else str(target) for column, target in row.targets.items())
    return ["; ".join(targets), "; ".join("pass" if passed else "MISSED" for passed in row.passes().values())]


def _row_to_json(row: Row) -> dict[str, Any]:
    passes = row.passes()
    return {
        "cells": {column: _cell_to_json(cell) for column, cell in row.cells.items()},
        "targets": {
            column: {"limit": target.limit, "sense": target.sense, "passed": passes[column]}
            for column, target in row.targets.items()
        },
    }


def _cell_to_json(cell: Cell) -> Any:
    if not isinstance(cell, Spread):
        return cell
    return {"median": cell.median, "quartiles": [cell.low, cell.high], "values": list(cell.values)}
