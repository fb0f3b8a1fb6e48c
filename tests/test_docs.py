"""The documentation's Python examples run as they stand; its links and settings exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvd_gossip.config import SETTINGS
from tests.mpi import ROOT, run_ranks

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(BLOCK.findall(page.read_text()))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str) -> None:
    """Alone, or those that use the package's API on two ranks."""
    if "hvd.init" in example:
        run_ranks(2, example)
    else:
        run_ranks(1, example, launcher="none")


@pytest.mark.slow
@pytest.mark.parametrize("example", [one for one in EXAMPLES if "hvd.init" in str(one.values[0])])
def test_an_example_runs_alone(example: str) -> None:
    run_ranks(1, example, launcher="none")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_variables_that_are_named_exist(page: Path) -> None:
    known = {setting.environment for setting in SETTINGS.values()}
    for variable in re.findall(r"\bHVD_GOSSIP_[A-Z_]+[A-Z]\b", page.read_text()):
        assert variable in known, f"{page.name} names {variable}"
