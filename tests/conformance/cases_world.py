"""Horovod, "Concepts", and the API pages' functions about the job: ranks, sizes, what was built."""

from __future__ import annotations

from tests.conformance.case import Cases
from tests.conformance.framework import Framework

CASES = Cases()


@CASES.add()
def rank_is_unique_from_0_to_size_less_1(f: Framework) -> None:
    """Concepts: rank is the unique process id from 0 to size - 1, size the number of processes."""
    ranks = f.hvd.allgather_object(f.hvd.rank())
    assert ranks == list(range(f.hvd.size()))


@CASES.add()
def local_rank_is_unique_within_the_host(f: Framework) -> None:
    """Concepts: local rank is the unique process id within the server; here all are on one."""
    places = f.hvd.allgather_object((f.hvd.local_rank(), f.hvd.local_size()))
    assert sorted(places) == [(rank, f.hvd.size()) for rank in range(f.hvd.size())]


@CASES.add()
def cross_rank_is_the_number_of_the_host(f: Framework) -> None:
    """API, cross_size and cross_rank: the number of nodes, and this process's node's rank among them."""
    assert f.hvd.cross_size() == 1
    assert f.hvd.cross_rank() == 0


@CASES.add()
def is_homogeneous_where_all_hosts_have_as_many_ranks(f: Framework) -> None:
    """API, is_homogeneous: True if all nodes have the same number of ranks."""
    assert f.hvd.is_homogeneous() is True


@CASES.add()
def is_initialized_after_init(f: Framework) -> None:
    """API, is_initialized: True if Horovod is initialized."""
    assert f.hvd.is_initialized() is True


@CASES.add()
def init_again_does_nothing(f: Framework) -> None:
    """API, init: initializes Horovod; scripts and libraries call it more than once."""
    before = f.hvd.rank(), f.hvd.size()
    f.hvd.init()
    assert (f.hvd.rank(), f.hvd.size()) == before


@CASES.add()
def mpi_is_built_and_enabled(f: Framework) -> None:
    """API, mpi_built, mpi_enabled: whether this build and this run use MPI; ours always do."""
    assert f.hvd.mpi_built() is True
    assert f.hvd.mpi_enabled() is True
    assert isinstance(f.hvd.mpi_threads_supported(), bool)


@CASES.add()
def backends_that_are_not_there_say_so(f: Framework) -> None:
    """API, *_built, gloo_enabled: False (nccl_built: 0) for what this build has not."""
    for name in ("gloo_built", "gloo_enabled", "ddl_built", "ccl_built", "rocm_built"):
        assert getattr(f.hvd, name)() is False, name
    assert isinstance(f.hvd.nccl_built(), int)
    assert isinstance(f.hvd.cuda_built(), bool)


@CASES.add()
def reduction_operations_are_different_things(f: Framework) -> None:
    """API: Average, Sum, Adasum, Min, Max, Product name the reductions."""
    names = ("Average", "Sum", "Adasum", "Min", "Max", "Product")
    assert len({getattr(f.hvd, name) for name in names}) == len(names)
