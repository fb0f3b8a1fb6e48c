"""Calls: what the requests of an operation's tensors are named, and how they are grouped."""

from __future__ import annotations

import re

import pytest

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.calls import Call, averaging, backward_of, make_call, reduce_op
from hvd_gossip.collectives import Average, Max, Sum


def test_one_tensor_has_the_operations_name() -> None:
    call = make_call("allreduce", "loss", global_process_set, op=Sum)
    assert list(call.each(1)) == [{"kind": "allreduce", "name": "allreduce.loss", "process_set": 0, "op": Sum}]


def test_tensors_of_a_group_are_numbered() -> None:
    call = make_call("allgather", "x", global_process_set, grouped=True)
    requests = list(call.each(3))
    assert [request["name"] for request in requests] == [f"grouped_allgather.x_{i}of3" for i in (1, 2, 3)]
    assert {(request["group"], request["group_size"]) for request in requests} == {("grouped_allgather.x", 3)}
    assert list(call.each(0)) == []


def test_unnamed_calls_are_numbered() -> None:
    first, second = (make_call("broadcast", None, global_process_set, root_rank=0).name for _ in range(2))
    numbers = [int(found[1]) for name in (first, second) if (found := re.fullmatch(r"broadcast\.noname\.(\d+)", name))]
    assert numbers[1] == numbers[0] + 1


def test_the_backward_pass_stays_in_the_process_set_and_in_groups() -> None:
    call = Call("allgather", "grouped_allgather.x", {"process_set": 3}, grouped=True)
    back = call.backward("allreduce", op=Average)
    assert back.name == "grouped_allgather.x.grad"
    assert back.kind == "allreduce"
    assert dict(back.fields) == {"process_set": 3, "op": Average}
    assert back.grouped


def test_a_process_set_must_be_registered() -> None:
    with pytest.raises(ValueError, match="has not been registered"):
        make_call("allreduce", None, ProcessSet([0]))


def test_gradients_of_a_reduction_are_reduced_in_the_same_way() -> None:
    call = make_call("allreduce", "x", global_process_set, op=Sum, prescale=0.5, postscale=2.0)
    back = backward_of(call)
    assert (back.kind, back.name) == ("allreduce", "allreduce.x.grad")
    assert dict(back.fields) == {"process_set": 0, "op": Sum, "prescale": 0.5, "postscale": 2.0}
    with pytest.raises(NotImplementedError, match=r"allreduce\.y.*only op=Average and op=Sum"):
        backward_of(make_call("allreduce", "y", global_process_set, op=Max, prescale=1.0, postscale=1.0))


def test_gradients_of_what_moves_data_are_averaged() -> None:
    back = averaging(make_call("broadcast", "x", global_process_set, root_rank=3))
    assert dict(back.fields) == {"process_set": 0, "op": Average, "prescale": 1.0, "postscale": 1.0}


def test_average_is_deprecated_in_favour_of_op() -> None:
    assert reduce_op(None, None) is Average
    assert reduce_op(1, None) is Sum
    for average, op in ((True, Average), (False, Sum)):
        with pytest.warns(DeprecationWarning, match="replaced with `op`") as caught:
            assert reduce_op(None, average, stacklevel=1) is op
        assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="supersedes average"):
        reduce_op(Sum, True)
    with pytest.raises(ValueError, match="99"):
        reduce_op(99, None)
