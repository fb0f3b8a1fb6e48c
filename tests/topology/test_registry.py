"""From what the user says to a topology."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.topology import TOPOLOGIES, Topology, check_spec, make_topology


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_name_is_built_under_its_own_name_and_described_in_a_line(name: str) -> None:
    topology = make_topology(name, 8, hosts=[0] * 8)
    assert isinstance(topology, Topology)
    assert (topology.name, topology.size) == (name, 8)
    assert 10 < len(TOPOLOGIES[name]) < 100
    assert "\n" not in TOPOLOGIES[name]
    check_spec(name)


@pytest.mark.parametrize(
    ("word", "close"), [("rings", "ring"), ("exponental", "exponential"), ("hyper-cube", "hypercube")]
)
def test_unknown_name_is_an_error_with_close_matches_and_all_names(word: str, close: str) -> None:
    for check in (check_spec, lambda spec: make_topology(spec, 4)):
        with pytest.raises(ConfigError) as caught:
            check(word)
        assert re.search(rf"{word!r} is unknown\. Did you mean .*{close}", str(caught.value))
        assert all(name in str(caught.value) for name in TOPOLOGIES)


def test_nothing_like_a_name_gets_no_guess() -> None:
    with pytest.raises(ConfigError, match=r"'zzz' is unknown\. Valid: ring, "):
        check_spec("zzz")


def test_name_wins_over_a_file_and_a_file_s_kind_is_checked_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ring").write_text("not a topology")
    assert make_topology("ring", 4).name == "ring"
    check_spec("elsewhere.csv")
    (tmp_path / "mine.dat").write_text("0 1")
    with pytest.raises(ConfigError, match=r"has the suffix '\.dat'; files that can be read"):
        make_topology("mine.dat", 4)


def test_objects_are_taken_by_their_type() -> None:
    path = nx.path_graph(3)
    assert make_topology(path, 3).name == "graph"
    assert make_topology(np.eye(3), 3).name == "matrix"
    assert make_topology([np.eye(3)], 3).name == "matrix"
    own = make_topology("ring", 3)
    assert make_topology(own, 3) is own


def test_options_reach_what_is_built() -> None:
    graph = nx.Graph([(0, 1), (1, 2), (2, 3), (2, 4)])
    assert make_topology(graph, 5, weights="metropolis").in_weights(0, 0) == pytest.approx({1: 1 / 3})
    assert make_topology(graph, 5, weights="uniform").in_weights(0, 0) == pytest.approx({1: 1 / 4})
    assert make_topology(graph, 5, weights="uniform", laziness=0.5).in_weights(0, 0) == pytest.approx({1: 1 / 8})
    one, other = (make_topology("random-matching", 32, seed=seed).matrix() for seed in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("spec", [None, 3, 0.5, object(), {"matrix": []}])
def test_spec_of_another_type_is_an_error(spec: Any) -> None:
    with pytest.raises(ConfigError, match="a topology is a name, a path, a networkx graph, a matrix"):
        make_topology(spec, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "at least 1 worker, not 0"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"laziness": 1.0}, "laziness must be at least 0 and below 1, not 1.0"),
        ({"laziness": -0.1}, "laziness must be"),
        ({"laziness": float("nan")}, "laziness must be"),
        ({"weights": "equal"}, "valid: metropolis, uniform"),
        ({"hosts": [0, 0, 1]}, "hosts names the hosts of 3 ranks, but there are 4 workers"),
    ],
)
def test_argument_out_of_range_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_topology("ring", **{"size": 4, **arguments})


def test_own_topology_must_fit_and_brings_its_own_laziness() -> None:
    own = make_topology("ring", 3)
    with pytest.raises(TopologyError, match="'ring' is for 3 workers, but there are 4"):
        make_topology(own, 4)
    with pytest.raises(ConfigError, match=r"laziness 0\.5 cannot be added to a Topology object"):
        make_topology(own, 3, laziness=0.5)
