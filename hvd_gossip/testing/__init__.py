"""The conformance list, for an algorithm of your own as for ours.

    from hvd_gossip.testing import Row, conformance_tests

    globals().update(conformance_tests([Row("mine")]))

in a test module gives pytest every test that all algorithms pass, in the simulator: exactness with one worker, the paper's
equations (`Row.iterates`), mass, consensus, progress, departures, joins, checkpoints, poison. Needs pytest and hypothesis:
`pip install hvd-gossip[testing]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("training", "invariants", "joining")))

from hvd_gossip.testing import invariants, joining, training  # noqa: E402
from hvd_gossip.testing.graphs import random_directed_rounds, random_graph, random_tree  # noqa: E402
from hvd_gossip.testing.row import Row  # noqa: E402
from hvd_gossip.testing.run import Run  # noqa: E402
from hvd_gossip.testing.selection import collect  # noqa: E402

__all__ = ["FAMILIES", "Row", "Run", "conformance_tests", "random_directed_rounds", "random_graph", "random_tree"]

FAMILIES = (training, invariants, joining)
"""The modules that the tests are in."""


def conformance_tests(rows: Iterable[Row]) -> Mapping[str, Callable[..., None]]:
    """The tests of the conformance list for some rows, to be put into a test module's globals.

    Args:
        rows: algorithms under settings; `Row` says what each promises.

    Returns:
        Test functions for pytest, by name, each parametrized by the rows that it is for.
    """
    return collect(rows)
