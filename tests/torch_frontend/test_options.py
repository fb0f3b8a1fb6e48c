"""What can be asked of a DistributedOptimizer."""

from __future__ import annotations

import pickle

import hvd_gossip.torch as hvd
import pytest
import torch
from hvd_gossip.torch.options import Options, name_groups, name_parameters
from torch import nn

from hvd_gossip.errors import ConfigError


@pytest.fixture
def optimizer() -> torch.optim.SGD:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    return torch.optim.SGD([{"params": first.parameters()}, {"params": second.parameters()}], lr=0.1)


def test_names_by_place(optimizer: torch.optim.SGD) -> None:
    names = name_parameters(optimizer.param_groups, None)
    assert list(names.values()) == ["allreduce.noname.0.0", "allreduce.noname.0.1", "allreduce.noname.1.0"]


def test_given_names_may_be_more_than_needed() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
    names = name_parameters(optimizer.param_groups, model.named_parameters())
    assert [names[p] for p in model[1].parameters()] == ["1.weight", "1.bias"]


def test_wrong_names_are_refused(optimizer: torch.optim.SGD) -> None:
    groups = optimizer.param_groups
    parameters = [p for group in groups for p in group["params"]]
    with pytest.raises(ValueError, match="sequence of tuples"):
        name_parameters(groups, parameters)
    with pytest.raises(ValueError, match=r"Found duplicates: same$"):
        name_parameters(groups, [("same", p) for p in parameters])
    with pytest.raises(ValueError, match=r"were not named: param_groups\[1\]\['params'\]\[0\]"):
        name_parameters(groups, [("a", parameters[0]), ("b", parameters[1])])


def test_groups_become_names(optimizer: torch.optim.SGD) -> None:
    names = name_parameters(optimizer.param_groups, None)
    one, two, three = names
    assert name_groups(None, 0, names) is None
    assert name_groups(2, 0, names) == 2
    assert name_groups([[three, one], [two]], 0, names) == ((names[three], names[one]), (names[two],))
    with pytest.warns(DeprecationWarning, match="num_groups"):
        assert name_groups(None, 3, names) == 3


def test_wrong_groups_are_refused(optimizer: torch.optim.SGD) -> None:
    names = name_parameters(optimizer.param_groups, None)
    one = next(iter(names))
    with pytest.raises(ValueError, match="non-negative integer or a list"):
        name_groups(-1, 0, names)
    with pytest.raises(ValueError, match=r"must consist of torch\.Tensor"):
        name_groups([["a"]], 0, names)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="appear once"):
        name_groups([[one], [one]], 0, names)


@pytest.mark.parametrize("passes", [0, -1, 1.5])
def test_backward_passes_are_counted_from_one(passes: int) -> None:
    with pytest.raises(ValueError, match="positive integer"):
        Options(backward_passes_per_step=passes)


def test_operations_are_checked() -> None:
    with pytest.raises(NotImplementedError, match="Adasum does not support non-global process sets"):
        Options(op=hvd.Adasum, process_set=hvd.ProcessSet([0]))
    with pytest.raises(ValueError, match="99"):
        Options(op=99)
    with pytest.raises(ValueError, match="gradient_predivide_factor not supported with op != Average"):
        Options(op=hvd.Sum, gradient_predivide_factor=2.0)


def test_options_can_be_pickled() -> None:
    options = Options(names=("a",), compression=hvd.Compression.fp16, groups=(("a",),), settings={"mixing_period": 2})
    assert pickle.loads(pickle.dumps(options)) == options
    assert options.with_passes(3).backward_passes_per_step == 3


def test_before_init_everything_says_so() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert not hvd.is_initialized()
    for call in (hvd.rank, hvd.size, hvd.local_rank, hvd.cross_size, hvd.barrier, hvd.mpi_threads_supported):
        with pytest.raises(ValueError, match=r"Horovod has not been initialized; use hvd.init\(\)\."):
            call()  # type: ignore[operator]
    with pytest.raises(ValueError, match="not been initialized"):
        hvd.allreduce(torch.ones(1))
    with pytest.raises(ValueError, match="not been initialized"):
        hvd.DistributedOptimizer(optimizer)
    with pytest.raises(ValueError, match="not been initialized"), hvd.consensus(model):
        pass


def test_a_wrong_setting_is_refused_before_mpi_starts() -> None:
    with pytest.raises(ConfigError, match="adpsgd"):
        hvd.init(algorithm="adpsdg")
    with pytest.raises(ConfigError, match="mixing_period"):
        hvd.init(mixing_priod=2)
    assert not hvd.is_initialized()


def test_what_is_built_in() -> None:
    assert hvd.mpi_built()
    assert not hvd.mpi_enabled()
    built = (hvd.gloo_built, hvd.gloo_enabled, hvd.nccl_built, hvd.ddl_built, hvd.ccl_built, hvd.rocm_built)
    assert not any(function() for function in built)
    assert isinstance(hvd.cuda_built(), bool)
