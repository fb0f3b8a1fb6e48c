"""Where the simulator's time goes, and that its benchmark measures what it says."""

from __future__ import annotations

import pytest

from benchmarks import simulator
from benchmarks.options import SimulatorOptions
from benchmarks.spread import Spread

HEAP = ("~", 0, "<built-in method _heapq.heappush>")
LENGTH = ("~", 0, "<built-in method builtins.len>")
PUSH = ("/x/hvd_gossip/transport/simulated.py", 1, "push")
SEND = ("/x/hvd_gossip/transport/simulated_endpoint.py", 1, "send")
STEP = ("/x/hvd_gossip/tasks.py", 1, "step")
FOLD = ("/x/hvd_gossip/buffers/replica.py", 1, "fold")
TRAIN = ("/x/hvd_gossip/simulate.py", 1, "train")
MAIN = ("/x/somewhere.py", 1, "main")


def test_built_in_functions_count_for_who_calls_them() -> None:
    stats = {
        PUSH: (1, 1, 1.0, 2.0, {}),
        SEND: (1, 1, 2.0, 2.0, {}),
        STEP: (1, 1, 1.0, 9.0, {}),
        FOLD: (1, 1, 1.0, 1.0, {}),
        TRAIN: (1, 1, 1.0, 9.0, {}),
        MAIN: (1, 1, 1.0, 9.0, {}),
        HEAP: (1, 1, 1.0, 1.0, {SEND: (1, 1, 1.0, 1.0)}),
        LENGTH: (4, 4, 2.0, 2.0, {STEP: (1, 1, 0.5, 0.5), SEND: (3, 3, 1.5, 1.5)}),
    }
    rooms = {"clock": 2.0, "scheduler": 1.5, "messages": 3.5, "arithmetic": 1.0, "algorithm": 1.0, "other": 1.0}
    assert simulator.rooms_of(stats) == pytest.approx({room: spent / 10 for room, spent in rooms.items()})


def test_the_long_run_alone_has_a_target_and_shares_add_up() -> None:
    options = SimulatorOptions(sizes=(4, 8), steps=6, repetitions=2, long_size=4, long_steps=10)
    report = simulator.measure(options)
    assert [bool(row.targets) for row in report.rows] == [False] * (len(report.rows) - 1) + [True]
    for row in report.rows[:-1]:
        cost = row.cells[simulator.COST]
        assert isinstance(cost, Spread)
        assert len(cost.values) == 2
        shares = [value for name, value in row.cells.items() if name.endswith(" (%)") and isinstance(value, float)]
        assert (sum(shares) == pytest.approx(100)) == (row.cells[simulator.WORKERS] == "8")
    assert simulator.draw(report).axes
