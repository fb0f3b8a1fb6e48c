"""The table of algorithms, and those of the documentation: they say what the classes say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest

from hvd_gossip.algorithms.adpsgd import ADPSGD
from hvd_gossip.algorithms.base import Algorithm
from hvd_gossip.algorithms.registry import ALGORITHMS, OWN
from hvd_gossip.algorithms.table import COLUMNS, algorithms_table, cells, render, waits_for

ROOT = Path(__file__).parents[2]


class Mine(ADPSGD):
    name = "mine"
    good_for = "showing that a user's own is shown"
    waits_for: ClassVar[str] = "the postman"


def documented(page: str) -> dict[str, list[str]]:
    """The rows of a page's table of algorithms, by name."""
    lines = (ROOT / page).read_text().partition("| `--algorithm` |")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_algorithm_has_a_row_with_all_that_its_class_says() -> None:
    text = render(algorithms_table({**ALGORITHMS, "mine": Mine}))
    words = set(text.split())
    kinds: list[type[Algorithm]] = [*OWN, Mine]
    for kind in kinds:
        for cell in cells(kind):
            assert words >= {word for word in cell.split() if len(word) < 8}, (kind.name, cell)
    assert all(column.split()[0] in words for column in COLUMNS)
    assert "postman" in text


def test_no_cell_is_empty() -> None:
    assert not [kind.name for kind in OWN if not all(cells(kind))]


@pytest.mark.parametrize("page", ["README.md", "docs/algorithms.md"])
def test_the_pages_have_every_algorithm_and_no_other(page: str) -> None:
    assert set(documented(page)) == {kind.name for kind in OWN}


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.name)
def test_the_pages_say_what_the_class_says(kind: type[Algorithm]) -> None:
    averages, waits, topology, memory, _ = documented("docs/algorithms.md")[kind.name]
    assert (averages, waits) == (kind.averages, waits_for(kind))
    assert kind.needs == "none" or (topology.startswith(kind.needs) and f"`{kind.default_topology}`" in topology)
    assert memory.startswith(kind.memory)
    paper, waits, _ = documented("README.md")[kind.name]
    assert waits == waits_for(kind)
    author, year = re.split(r"[ ,]", paper)[0], paper[-4:]
    assert author in kind.paper
    assert year in kind.paper
