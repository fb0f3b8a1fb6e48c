"""Which cases each framework runs, in order. Those that initialize anew come last."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import chain

from tests.conformance.case import Case

COMMON = (
    "cases_world",
    "cases_allreduce",
    "cases_gather",
    "cases_scatter",
    "cases_process_sets",
    "cases_negotiation",
    "cases_join",
    "cases_objects",
    "cases_adasum",
    "cases_optimizer",
    "cases_sync_batch_norm",
    "cases_timeline",
    "cases_mixture",
)
LAST = ("cases_lifecycle",)
OWN = {
    "torch": (
        "torch_cases_handles",
        "torch_cases_in_place",
        "torch_cases_sparse",
        "torch_cases_state",
        "torch_cases_optimizer",
        "torch_cases_options",
        "torch_cases_sync_batch_norm",
        "torch_cases_elastic",
    ),
    "tensorflow": (),
}
"""The files of each framework's own cases; they import that framework."""


def cases_of(framework: str) -> list[Case]:
    """All cases of a framework; imports it.

    Raises:
        ValueError: two cases of one name.
    """
    cases = list(chain.from_iterable(_read(file) for file in (*COMMON, *OWN[framework], *LAST)))
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two cases have one name: {sorted(twice)}")
    return cases


def _read(file: str) -> Sequence[Case]:
    cases: Sequence[Case] = importlib.import_module(f"tests.conformance.{file}").CASES
    return cases
