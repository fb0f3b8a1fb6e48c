"""Calls: what the requests of an operation's tensors are named, and how they are grouped."""

from __future__ import annotations

import re

import hvd_gossip.torch as hvd
import pytest
from hvd_gossip.torch.submit import Call, make_call


def test_one_tensor_has_the_operations_name() -> None:
    call = make_call("allreduce", "loss", hvd.global_process_set, op=hvd.Sum)
    assert list(call.each(1)) == [{"kind": "allreduce", "name": "allreduce.loss", "process_set": 0, "op": hvd.Sum}]


def test_tensors_of_a_group_are_numbered() -> None:
    call = make_call("allgather", "x", hvd.global_process_set, grouped=True)
    requests = list(call.each(3))
    assert [request["name"] for request in requests] == [f"grouped_allgather.x_{i}of3" for i in (1, 2, 3)]
    assert {(request["group"], request["group_size"]) for request in requests} == {("grouped_allgather.x", 3)}
    assert list(call.each(0)) == []


def test_unnamed_calls_are_numbered() -> None:
    first, second = (make_call("broadcast", None, hvd.global_process_set, root_rank=0).name for _ in range(2))
    numbers = [int(found[1]) for name in (first, second) if (found := re.fullmatch(r"broadcast\.noname\.(\d+)", name))]
    assert numbers[1] == numbers[0] + 1


def test_the_backward_pass_stays_in_the_process_set_and_in_groups() -> None:
    call = Call("allgather", "grouped_allgather.x", {"process_set": 3}, grouped=True)
    back = call.backward("allreduce", op=hvd.Average)
    assert back.name == "grouped_allgather.x.grad"
    assert back.kind == "allreduce"
    assert dict(back.fields) == {"process_set": 3, "op": hvd.Average}
    assert back.grouped


def test_a_process_set_must_be_registered() -> None:
    with pytest.raises(ValueError, match="has not been registered"):
        make_call("allreduce", None, hvd.ProcessSet([0]))
