"""The table of algorithms, from the classes themselves: `hvd-gossip-run --list-algorithms`."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hvd_gossip.algorithms.base import Algorithm
from hvd_gossip.algorithms.settings import OUTER

WIDTH = 150
"""Columns of the table where the output is no terminal."""
COLUMNS = ("--algorithm", "waits for", "topology (default)", "memory", "settings", "good for", "bad for", "paper")


def waits_for(kind: type[Algorithm]) -> str:
    """Whom a worker waits for in a step: `kind.waits_for`, or what follows from the class's other attributes."""
    if kind.waits_for:
        return kind.waits_for
    if kind.averages == "gradients":
        return "everybody, every step"
    return "its neighbours of the step" if kind.synchronous else "nobody"


def topology_of(kind: type[Algorithm]) -> str:
    """What it asks of a topology, and its default one."""
    return "none" if kind.needs == "none" else f"{kind.needs} ({kind.default_topology})"


def settings_of(kind: type[Algorithm]) -> str:
    """The settings that it heeds beside those of every algorithm; those of the outer step as one."""
    order = ["mixing_order"] if len(kind.orders) > 1 else []
    outer = ["outer ..."] if kind.heeds >= OUTER else []
    return ", ".join([*order, *sorted(kind.heeds - OUTER if outer else kind.heeds), *outer]) or "none"


def cells(kind: type[Algorithm]) -> tuple[str, ...]:
    """A row of the table, in the order of COLUMNS."""
    return (
        kind.name,
        waits_for(kind),
        topology_of(kind),
        kind.memory,
        settings_of(kind),
        kind.good_for,
        kind.bad_for,
        kind.paper,
    )


def algorithms_table(algorithms: Mapping[str, type[Algorithm]]) -> Table:
    """One row an algorithm, one of a user's own among them."""
    table = Table(
        title="Algorithms (--algorithm)", box=SIMPLE_HEAD, title_justify="left", show_lines=False, padding=(0, 1, 1, 0)
    )
    for column in COLUMNS:
        table.add_column(column, no_wrap=column == COLUMNS[0], overflow="fold")
    for kind in algorithms.values():
        table.add_row(*cells(kind))
    return table


def render(table: Table) -> str:
    """The table as text, as wide as the terminal, or WIDTH."""
    console = Console(width=None if Console().is_terminal else WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
