"""What distributed optimizers may be asked about averaging gradients."""

from __future__ import annotations

import warnings

import pytest

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.collectives import Adasum, Average, Max, Sum
from hvd_gossip.gradient_options import (
    check_mixing,
    check_passes,
    check_reduction,
    choose_groups,
    reduction_fields,
    split_evenly,
)


def test_passes_are_a_positive_integer() -> None:
    check_passes(1)
    check_passes(7)
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match="backward_passes_per_step must be a positive integer"):
            check_passes(wrong)  # type: ignore[arg-type]


def test_reductions_that_do_not_exist() -> None:
    check_reduction(Average, 2.0, global_process_set)
    check_reduction(Max, 1.0, ProcessSet([0]))
    check_reduction(Adasum, 1.0, global_process_set)
    with pytest.raises(ValueError, match="99"):
        check_reduction(99, 1.0, global_process_set)
    with pytest.raises(ValueError, match="gradient_predivide_factor not supported with op != Average"):
        check_reduction(Sum, 2.0, global_process_set)
    with pytest.raises(NotImplementedError, match="process sets"):
        check_reduction(Adasum, 1.0, ProcessSet([0]))


def test_a_predivide_factor_is_taken_back_after_the_sum() -> None:
    assert reduction_fields(0, 4.0) == {"op": Average, "prescale": 0.25, "postscale": 4.0}
    fields = reduction_fields(Average, 3.0)
    assert fields["prescale"] * fields["postscale"] == pytest.approx(1.0)


def test_num_groups_is_deprecated() -> None:
    assert choose_groups(None, 0) is None
    assert choose_groups(0, 0) is None
    assert choose_groups(3, 0) == 3
    assert choose_groups([["a"]], 0) == [["a"]]
    for groups, chosen in ((None, 2), (3, 3)):
        with pytest.warns(DeprecationWarning, match="num_groups") as caught:
            assert choose_groups(groups, 2, stacklevel=1) == chosen
        assert caught[0].filename == __file__


def test_gossip_averages_and_warns_once_of_what_merely_tunes_an_allreduce() -> None:
    check_mixing("of this test", Average, [])
    with pytest.raises(ValueError, match="takes no op but Average"):
        check_mixing("of this test", Sum, [])
    with pytest.warns(UserWarning, match="compression, groups of DistributedOptimizer"):
        check_mixing("of this test", Average, ["compression", "groups"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_mixing("of this test", Average, ["groups"])
    with pytest.warns(UserWarning, match=r"^groups of DistributedOptimizer"):
        check_mixing("another of it", Average, ["groups"])


def test_runs_of_nearly_equal_length() -> None:
    assert split_evenly([1, 2, 3, 4, 5], 2) == [[1, 2, 3], [4, 5]]
    assert split_evenly("abc", 3) == [["a"], ["b"], ["c"]]
    assert split_evenly([1], 3) == [[1], [], []]
    assert split_evenly([], 2) == [[], []]
