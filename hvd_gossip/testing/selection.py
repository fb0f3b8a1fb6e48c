"""Which rows a conformance test is for, and the list of all such tests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from hvd_gossip.testing.row import Row

Test = Callable[..., None]
F = TypeVar("F", bound=Test)
_TESTS: dict[str, tuple[Test, Callable[[Row], bool]]] = {}

_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long an example takes decides nothing; the rest is the profile that is loaded when this is imported (a dozen rows share
the time that tests may take, so each has few examples; HYPOTHESIS_PROFILE=explore takes ten times as many)."""
few = settings(_PATIENT, max_examples=_PATIENT.max_examples // 12)
very_few = settings(_PATIENT, max_examples=_PATIENT.max_examples // 25)


def select(wanted: Callable[[Row], bool]) -> Callable[[F], F]:
    """Decorates a test with a parameter `row`: it is run for the rows that are wanted."""

    def register(test: F) -> F:
        name = test.__name__
        if name in _TESTS:
            raise ValueError(f"there are two conformance tests called {name}")
        _TESTS[name] = (test, wanted)
        return test

    return register


def mixes(row: Row) -> bool:
    """Whether it mixes parameters."""
    return row.kind.averages == "parameters"


def collect(rows: Iterable[Row]) -> Mapping[str, Test]:
    """Every test that is for some of the rows, by name, parametrized by them."""
    rows = list(rows)
    chosen = {name: (test, [row for row in rows if wanted(row)]) for name, (test, wanted) in _TESTS.items()}
    return {name: _parametrized(test, fitting) for name, (test, fitting) in chosen.items() if fitting}


def _parametrized(test: Test, rows: list[Row]) -> Test:
    """A function of its own: marks are kept on functions, and another list may be collected too."""

    @functools.wraps(test)
    def run(*args: Any, **options: Any) -> None:
        test(*args, **options)

    examples = hasattr(test, "hypothesis")
    params = [
        pytest.param(row, marks=[pytest.mark.slow] if row.variant and examples else [], id=str(row)) for row in rows
    ]
    parametrized: Test = pytest.mark.parametrize("row", params)(run)
    return parametrized
