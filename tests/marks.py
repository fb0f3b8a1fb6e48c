"""Which of a parameter's values are left to the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(values: Iterable[Any], *quick: Any) -> list[Any]:
    """For `parametrize`: all values, those but the `quick` ones marked `slow`."""
    return [pytest.param(value, marks=[] if value in quick else [pytest.mark.slow]) for value in values]
