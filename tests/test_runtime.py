"""The runtime on real processes: replicas, exact means, uneven ends, and every way for a process to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.marks import slow_except
from tests.mpi import run_ranks

GOSSIP = ["dpsgd", "adpsgd", "sgp", "choco"]
SETTINGS = {"choco": {"compressor": "qsgd-8"}}
"""Where the default ones need more than a few steps."""
PREAMBLE = """
import sys, time
import numpy as np
from hvd_gossip import runtime
from hvd_gossip.collectives import Request, Sum
from tests.mpi import report

def replica(rt, length=50_000, dtype=np.float32):
    return np.random.default_rng(rt.world.rank).standard_normal(length).astype(dtype)

def total(rt, x, name):
    out = np.empty(x.shape, np.float64)
    rt.submit(Request(name=name, kind="allreduce", op=Sum, array=x.astype(np.float64), output=out)).wait()
    return out
"""


@pytest.mark.parametrize("ranks", slow_except(range(1, 6), 5))
@pytest.mark.parametrize("algorithm", GOSSIP)
def test_the_mean_of_real_parameters_stands_still_and_workers_agree(algorithm: str, ranks: int) -> None:
    """Invariants mass and consensus over MPI: at least 30 steps without updates, of uneven times (under AD-PSGD, whose
    exchanges keep no step waiting, at least 15 exchanges); then the exact mean."""
    script = (
        PREAMBLE
        + f"""
rt = runtime.init(algorithm={algorithm!r}, seed=1, **{SETTINGS.get(algorithm, {})!r})
x = replica(rt)
before = total(rt, x, "before") / rt.world.size
worker = rt.attach([x], chunk_bytes=65536)
apart = worker.consensus_distance()
rng = np.random.default_rng(rt.world.rank)
steps, wanted = 0, 15 if {algorithm!r} == "adpsgd" and rt.world.size > 1 else 0
while steps < 30 or (rt.counters.exchanges < wanted and steps < 4000):
    time.sleep(rng.uniform(0, 0.004))
    worker.step(lambda: None)
    steps += 1
distance, rounds = worker.consensus_distance(), 0
while wanted and distance >= 0.1 * apart and rounds < 50:  # one may have begun when the others were done
    for _ in range(30):
        time.sleep(0.001)
        worker.step(lambda: None)
    distance, rounds = worker.consensus_distance(), rounds + 1
own = x.copy()
with worker.consensus():
    inside = float(abs(x - before).max())
restored = bool((own == x).all())
worker.pause()
after = total(rt, x, "after") / rt.world.size
report([inside, float(abs(after - before).max()), apart, distance, restored, rt.counters.exchanges, rt.counters.poisoned])
runtime.shutdown()
"""
    )
    for inside, drift, apart, distance, restored, exchanges, poisoned in run_ranks(ranks, script).in_rank_order():
        assert inside < 2e-6
        assert drift < 2e-6
        assert restored
        assert poisoned == 0
        if ranks == 1:
            assert (apart, distance, exchanges) == (0, 0, 0)
        else:
            assert apart > 100
            assert distance < 0.1 * apart
            assert exchanges > 5


@pytest.mark.parametrize("algorithm", slow_except(GOSSIP, "dpsgd", "adpsgd"))
def test_workers_may_take_different_numbers_of_steps(algorithm: str) -> None:
    """Uneven data (Horovod's #832): who has finished is not waited for; the exact mean still is everybody's."""
    script = (
        PREAMBLE
        + f"""
rt = runtime.init(algorithm={algorithm!r}, wait_timeout=20)
x = replica(rt, 1000, np.float64)
before = total(rt, x, "before")
worker = rt.attach([x])
for epoch in range(2):
    for _ in range(5 + 7 * rt.world.rank):
        worker.step(lambda: None)
    with worker.consensus():
        inside = float(abs(4 * x - before).max())
report(inside)
for _ in range(3 * rt.world.rank):
    worker.step(lambda: None)
runtime.shutdown()
"""
    )
    assert max(run_ranks(4, script).in_rank_order()) < 1e-12


@pytest.mark.parametrize(
    "algorithm", slow_except(["allreduce", *GOSSIP, "relaysgd"], "allreduce", "adpsgd", "relaysgd")
)
def test_training_goes_on_when_one_leaves_early(algorithm: str) -> None:
    """A departed worker's peers go on without it; under allreduce they are told who has left."""
    script = (
        PREAMBLE
        + f"""
rt = runtime.init(algorithm={algorithm!r}, wait_timeout=20)
x = replica(rt, 1000)
worker = rt.attach([x]) if {algorithm!r} != "allreduce" else None
if rt.world.rank == 1:
    runtime.shutdown()
    report("left")
    sys.exit(0)
try:
    for step in range(20):
        if worker:
            worker.step(lambda: None)
        else:
            total(rt, x, f"step{{step}}")
except Exception as error:
    report([type(error).__name__, str(error)])
else:
    report("done")
# Nobody leaves before the others have seen who left first.
rt.submit(Request("seen", "barrier", live_only=True)).wait()
runtime.shutdown()
"""
    )
    results = run_ranks(4, script).in_rank_order()
    assert results[1] == "left"
    if algorithm == "allreduce":
        assert [name for name, _ in (results[0], *results[2:])] == ["HorovodInternalError"] * 3
        assert all("1" in message for _, message in (results[0], *results[2:]))
    else:
        assert results == ["done", "left", "done", "done"]


def test_init_twice_is_init_once_and_after_shutdown_it_starts_anew() -> None:
    script = (
        PREAMBLE
        + """
first = runtime.init(algorithm="dpsgd")
again = runtime.init()
same = first is again
runtime.shutdown()
runtime.shutdown()
gone = runtime.is_initialized()
try:
    runtime.current()
except ValueError as error:
    message = str(error)
second = runtime.init()
sums = total(second, np.ones(3), "x").tolist()
report([same, gone, message, sums, second.config.algorithm])
"""
    )
    for same, gone, message, sums, algorithm in run_ranks(2, script).in_rank_order():
        assert (same, gone, sums, algorithm) == (True, False, [2, 2, 2], "allreduce")
        assert "hvd.init()" in message


def test_without_a_topology_networkx_is_not_imported() -> None:
    """Which takes half a second on each rank."""
    script = """
        import sys
        from hvd_gossip import basics
        from tests.mpi import report

        basics.init(algorithm=sys.argv[1])
        report("networkx" in sys.modules)
        basics.shutdown()
    """
    loaded = [run_ranks(1, script, [name], launcher="none").results[0] for name in ("allreduce", "dpsgd")]
    assert loaded == [False, True]


def test_ranks_that_attach_different_things_all_raise() -> None:
    script = (
        PREAMBLE
        + """
rt = runtime.init()
try:
    rt.attach([replica(rt, 10 + rt.world.rank // 2)], algorithm="sgp")
except ValueError as error:
    report(str(error))
runtime.shutdown()
"""
    )
    messages = run_ranks(3, script).in_rank_order()
    assert "rank 0 attached sgp" in messages[0]
    assert "rank(s) 2" in messages[0]
    assert "rank(s) 0, 1" in messages[2]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"algorithm": "adpgsd"}, "did you mean 'adpsgd'|adpsgd"),
        ({"algorithm": "dpsgd", "topology": "rign"}, "ring"),
        ({"mixing_perod": 2}, "mixing_period"),
        ({"algorithm": "allreduce", "mixing_period": 2}, "no meaning"),
        ({"algorithm": "adpsgd", "global_average_every": 2}, "no meaning"),
    ],
)
def test_bad_settings_raise_before_mpi_starts(settings: dict[str, object], expected: str) -> None:
    script = f"""
import sys
from hvd_gossip import runtime
from tests.mpi import report
try:
    runtime.init(**{settings!r})
except ValueError as error:
    report([type(error).__name__, str(error), "mpi4py.MPI" in sys.modules])
"""
    name, message, started = run_ranks(1, script, launcher="none").results[0]
    assert name == "ConfigError"
    assert any(part in message for part in expected.split("|"))
    assert not started


def test_a_poisoned_replica_stays_alone() -> None:
    script = (
        PREAMBLE
        + """
rt = runtime.init(algorithm="adpsgd")
x = replica(rt, 5000)
if rt.world.rank == 0:
    x[17] = np.nan
worker = rt.attach([x])
steps = 0
while steps < 20 or (rt.world.rank == 0 and not rt.counters.poisoned and steps < 4000):
    time.sleep(0.003)
    worker.step(lambda: None)
    steps += 1
rt.submit(Request("over", "barrier")).wait()
report([bool(np.isfinite(x).all()), rt.counters.poisoned])
runtime.shutdown()
"""
    )
    results = run_ranks(4, script).in_rank_order()
    assert [finite for finite, _ in results] == [False, True, True, True]
    assert results[0][1] > 0


@pytest.mark.parametrize("algorithm", slow_except(["allreduce", "adpsgd", "dpsgd"], "allreduce", "dpsgd"))
@pytest.mark.parametrize("how", ["raise", "exit", "interrupt"])
def test_a_script_that_fails_ends_the_job_and_leaves_nothing(algorithm: str, how: str) -> None:
    """run_ranks itself fails if the job hangs or leaves processes behind."""
    script = (
        PREAMBLE
        + f"""
rt = runtime.init(algorithm={algorithm!r}, wait_timeout=30, shutdown_timeout=5)
x = replica(rt, 1000)
worker = rt.attach([x]) if {algorithm!r} != "allreduce" else None
for step in range(1000 if {how!r} != "exit" else 30):
    if rt.world.rank == 1 and step == 5:
        if {how!r} == "raise":
            raise LookupError("the script's own error")
        if {how!r} == "interrupt":
            raise KeyboardInterrupt
        sys.exit(7)
    time.sleep(0.005)
    worker.step(lambda: None) if worker else total(rt, x, f"step{{step}}")
"""
    )
    run = run_ranks(3, script, check=False)
    assert run.returncode != 0
    if how == "raise":
        assert "the script's own error" in run.stderr


def test_an_exit_without_shutdown_departs_in_order() -> None:
    script = (
        PREAMBLE
        + """
rt = runtime.init(algorithm="sgp")
worker = rt.attach([replica(rt, 1000)])
for _ in range(10 * (1 + rt.world.rank)):
    worker.step(lambda: None)
report("done")
"""
    )
    assert run_ranks(4, script).in_rank_order() == ["done"] * 4


def test_a_straggler_holds_up_nobody_under_adpsgd() -> None:
    """Progress, in steps and not in seconds: the fast workers finish while the slow one has not begun."""
    script = (
        PREAMBLE
        + """
rt = runtime.init(algorithm="adpsgd")
worker = rt.attach([replica(rt, 1000)])
steps = 0
over = Request(name="over", kind="barrier", array=None)
if rt.world.rank != 3:
    while steps < 100 or (not rt.counters.exchanges and steps < 20_000):
        time.sleep(0.001)
        worker.step(lambda: None)
        steps += 1
report([steps, rt.counters.exchanges])
rt.submit(over).wait()
runtime.shutdown()
"""
    )
    results = run_ranks(4, script).in_rank_order()
    assert results[3][0] == 0
    assert all(steps >= 100 for steps, _ in results[:3])
    assert all(exchanges > 0 for _, exchanges in results[:3])


def test_the_report_line_and_metrics(tmp_path: Path) -> None:
    script = (
        PREAMBLE
        + f"""
rt = runtime.init(algorithm="adpsgd", metrics_dir={str(tmp_path)!r}, consensus_sample_every=2)
worker = rt.attach([replica(rt, 1000)])
steps = 0
while steps < 20 or (rt.counters.exchanges < 4 and steps < 4000):
    time.sleep(0.003)
    worker.step(lambda: None)
    steps += 1
worker.step(lambda: None)
report(steps)
runtime.shutdown()
"""
    )
    run = run_ranks(2, script)
    assert "hvd-gossip: adpsgd over complete (spectral gap 1) | 2 ranks, 1 host | Open MPI" in run.stderr
    from hvd_gossip.observe.metrics import read_metrics

    metrics = read_metrics(str(tmp_path))
    assert sorted(metrics) == [0, 1]
    for rank, steps in zip(metrics.values(), run.in_rank_order(), strict=True):
        assert rank.summary is not None
        assert rank.summary["steps"] == steps, "the first one has no beginning"
        assert np.isfinite(rank.steps["consensus_distance"]).any()


def test_the_timeline_shows_negotiation_and_transfer(tmp_path: Path) -> None:
    """HOROVOD_TIMELINE: rank 0 writes a Chrome trace with Horovod's event names."""
    script = (
        PREAMBLE
        + """
rt = runtime.init()
total(rt, np.ones(100_000), "grad.w")
runtime.shutdown()
"""
    )
    trace = tmp_path / "trace.json"
    run_ranks(2, script, env={"HOROVOD_TIMELINE": str(trace)})
    events = json.loads(trace.read_text())
    tensors = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    of_tensor = [event for event in events if tensors.get(event["pid"]) == "grad.w"]
    negotiation = {event["ph"]: event["ts"] for event in of_tensor if event["name"] == "NEGOTIATE_ALLREDUCE"}
    assert negotiation["B"] < negotiation["E"]
    transfer = next(event for event in of_tensor if event["name"] == "ALLREDUCE")
    assert transfer["ts"] >= negotiation["E"]
    assert transfer["dur"] > 0
