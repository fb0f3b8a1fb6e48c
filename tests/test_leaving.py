"""A rank whose engine has failed leaves, and the others need not wait to find out."""

from __future__ import annotations

from tests.mpi import run_ranks
from tests.test_joining import PREAMBLE

BREAK = """
def break_engine(rt):
    rt.engine.post(lambda: [][0])
    while rt.engine.failure is None:
        time.sleep(0.001)
"""


def test_the_others_operations_fail_at_once() -> None:
    script = (
        PREAMBLE
        + BREAK
        + """
rt = runtime.init(wait_timeout=30)
total(rt, np.ones(1), "first")
if rt.world.rank == 1:
    break_engine(rt)
    runtime.shutdown()
    report("left")
else:
    try:
        total(rt, np.ones(1), "second")
    except HorovodInternalError as error:
        report(str(error))
    rt.submit(Request("seen", "barrier", live_only=True)).wait()  # nobody else leaves before
    runtime.shutdown()
"""
    )
    first, second, third = run_ranks(3, script).in_rank_order()
    assert second == "left"
    assert "rank 1 has shut down" in first
    assert "rank 1 has shut down" in third


def test_neighbours_go_on_without_it() -> None:
    script = (
        PREAMBLE
        + BREAK
        + """
rt = runtime.init(algorithm="dpsgd", topology="complete", wait_timeout=30)
worker = rt.attach([replica(rt)])
for step in range(10):
    if rt.world.rank == 2 and step == 4:
        break_engine(rt)
        break
    worker.step(lambda: None)
report(step)
runtime.shutdown()
"""
    )
    assert run_ranks(3, script).in_rank_order() == [9, 9, 4]


def test_a_departure_that_fails_or_hangs_does_not_keep_the_next_from_its_turn() -> None:
    script = (
        PREAMBLE
        + BREAK
        + """
from hvd_gossip.leaving import leave_after_failure
rt = runtime.init(shutdown_timeout=2)
break_engine(rt)
said = []

async def raises():
    raise LookupError("gone wrong")

async def hangs():
    await rt.engine.endpoint.sleep(1e6)

async def works():
    said.append("goodbye")

leave_after_failure(rt.engine, [raises, hangs, works], timeout=0.3)
while not said:
    time.sleep(0.001)
report(said)
runtime.shutdown()
"""
    )
    assert run_ranks(1, script, launcher="none").results[0] == ["goodbye"]
