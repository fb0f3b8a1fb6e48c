"""What one rank collects, how all decide alike, and what is said about it; and a run on real ranks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.choice.chooser import Chooser, describe, meanwhile, refuse_undecided
from hvd_gossip.config import load
from hvd_gossip.errors import ConfigError
from tests.mpi import run_ranks


def choosers(seconds: list[float], **settings: object) -> list[Chooser]:
    asked = load({"algorithm": "auto", "auto_steps": 3, **settings}, {})
    made = [Chooser(asked, rank, len(seconds), 1e-5, 1e9) for rank in range(len(seconds))]
    for chooser, compute in zip(made, seconds, strict=True):
        for factor in (0.9, 1.0, 1.1):
            assert not chooser.ready
            chooser.record(compute * factor)
        assert chooser.ready
        chooser.record(1e3)  # comes too late to be seen
    return made


def test_all_ranks_decide_alike_and_a_straggler_is_seen() -> None:
    made = choosers([0.01, 0.01, 0.5])
    matrix = sum(chooser.measured(1000) for chooser in made)
    decisions = [chooser.decide(matrix) for chooser in made]
    assert decisions[0].chosen.algorithm == "adpsgd"
    assert decisions.count(decisions[0]) == 3
    assert made[0].settings(decisions[0]) == {"algorithm": "adpsgd", "topology": "auto", "mixing_period": 1}
    text = describe(decisions[0], matrix)
    assert "auto chooses adpsgd: it saves" in text
    assert all(name in text for name in ("allreduce", "dpsgd", "sgp", "10 to 500 ms"))


def test_equal_workers_on_fast_links_stay() -> None:
    made = choosers([0.01, 0.01])
    matrix = made[0].measured(1000) + made[1].measured(1000)
    decision = made[0].decide(matrix)
    assert made[0].settings(decision) == {"algorithm": "allreduce", "topology": "auto"}
    assert "gossip gains nothing here" in describe(decision, matrix)


def test_a_topology_that_was_asked_for_is_kept() -> None:
    made = choosers([0.01, 0.5], topology="ring")
    decision = made[0].decide(made[0].measured(1000) + made[1].measured(1000))
    assert made[0].settings(decision)["topology"] == "ring"


def test_where_somebody_does_not_train_nothing_is_changed() -> None:
    made = choosers([0.01, 0.5])
    decision = made[0].decide(made[0].measured(1000))
    assert (decision.chosen.algorithm, decision.reason[:13]) == ("allreduce", "not all ranks")


def test_it_is_for_whole_runs() -> None:
    assert meanwhile(load({"algorithm": "auto", "topology": "ring"}, {})).algorithm == "allreduce"
    assert meanwhile(load({"algorithm": "sgp"}, {})).algorithm == "sgp"
    with pytest.raises(ConfigError, match="for a whole run"):
        find_algorithm("auto")
    with pytest.raises(ConfigError, match=r"not there for graphs of tf\.compat\.v1: name one"):
        refuse_undecided(choosers([0.01])[0], "graphs of tf.compat.v1")
    refuse_undecided(None, "graphs of tf.compat.v1")


TRAINING = """
import time
import torch
import hvd_gossip.torch as hvd
from hvd_gossip import runtime
from tests.mpi import report

hvd.init(algorithm="auto", auto_steps=4, inject="slow=1:20", wait_timeout=100)
model = torch.nn.Linear(4, 2)
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.01), model.named_parameters())
algorithms = []
for step in range(20 if hvd.rank() == 0 else 8):
    optimizer.zero_grad()
    model(torch.full((3, 4), hvd.rank() + 1.0)).sum().backward()
    time.sleep(0.02)
    optimizer.step()
    algorithms.append(runtime.current().config.algorithm)
with hvd.consensus(model):
    mean = model.weight.detach().clone()
hooks = sum(len(p._post_accumulate_grad_hooks or ()) for p in model.parameters())
report([algorithms, mean.tolist(), hooks])
hvd.shutdown()
"""


@pytest.mark.timeout(200)
def test_two_ranks_change_to_gossip_between_two_steps(tmp_path: Path) -> None:
    """One is 20 times slower. They train with allreduce until five steps are made, then each goes on by itself."""
    run = run_ranks(2, TRAINING, env={"HVD_GOSSIP_METRICS_DIR": str(tmp_path)}, timeout=180)
    (fast, mean, hooks), (slow, other, _) = run.in_rank_order()
    assert fast == ["allreduce"] * 4 + ["adpsgd"] * 16
    assert slow == ["allreduce"] * 4 + ["adpsgd"] * 4
    np.testing.assert_array_equal(mean, other)
    assert hooks == 0
    assert run.stderr.count("auto chooses adpsgd") == 1
    for rank, steps in enumerate((20, 8)):
        kinds = [json.loads(line)["kind"] for line in (tmp_path / f"rank-{rank}.jsonl").read_text().splitlines()]
        assert kinds == ["start", *["step"] * 4, "choice", *["step"] * (steps - 5), "summary"]
