"""Topologies from files of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.topology import Topology, make_topology
from hvd_gossip.topology.files import READERS, read_topology

MATRIX = np.array([[0.5, 0.25, 0.0, 0.25], [0.25, 0.5, 0.25, 0.0], [0.0, 0.25, 0.5, 0.25], [0.25, 0.0, 0.25, 0.5]])
TWO_ROUNDS = np.stack([MATRIX, np.eye(4)])
DIRECTED = nx.DiGraph([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])


def weighted() -> nx.Graph[int]:
    graph: nx.Graph[int] = nx.Graph()
    graph.add_weighted_edges_from([(0, 1, 0.2), (1, 2, 0.3), (2, 3, 0.2), (3, 0, 0.5)])
    return graph


GRAPHS = {"plain": nx.cycle_graph(4), "directed": DIRECTED, "weighted": weighted()}


def write(path: Path, content: Any) -> Path:
    """Writes a matrix, matrices or a graph in the suffix's format."""
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix in (".csv", ".txt"):
        np.savetxt(path, content, delimiter="," if path.suffix == ".csv" else " ", header="who takes from whom")
    elif path.suffix == ".json" and isinstance(content, np.ndarray):
        path.write_text(json.dumps(content.tolist()))
    elif path.suffix == ".json":
        path.write_text(json.dumps(nx.node_link_data(content, edges="edges")))
    elif path.suffix == ".gml":
        nx.write_gml(content, path)
    elif path.suffix == ".graphml":
        nx.write_graphml_xml(content, path)
    else:
        data: Any = ["weight"] if nx.is_weighted(content) else False
        nx.write_edgelist(content, path, data=data)
        path.write_text(("# directed\n" if content.is_directed() else "") + path.read_text())
    return path


def assert_same(one: Topology, other: Topology) -> None:
    assert one.period is not None
    assert one.period == other.period
    for round_ in range(one.period):
        np.testing.assert_allclose(one.matrix(round_), other.matrix(round_), atol=1e-15)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".txt", ".json"])
def test_matrix_comes_back(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"w{suffix}", MATRIX)
    for spec in (path, str(path)):
        assert_same(make_topology(spec, 4, laziness=0.1), make_topology(MATRIX, 4, laziness=0.1))


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_rounds_come_back(tmp_path: Path, suffix: str) -> None:
    assert_same(make_topology(write(tmp_path / f"w{suffix}", TWO_ROUNDS), 4), make_topology(TWO_ROUNDS, 4))


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("suffix", [".json", ".gml", ".graphml", ".edgelist", ".edges"])
def test_graph_comes_back(tmp_path: Path, suffix: str, kind: str) -> None:
    path = write(tmp_path / f"graph{suffix}", GRAPHS[kind])
    assert_same(make_topology(path, 4, weights="uniform"), make_topology(GRAPHS[kind], 4, weights="uniform"))


def test_suffixes_may_be_in_capitals_and_every_one_has_a_reader_tried_here(tmp_path: Path) -> None:
    path = write(tmp_path / "w.csv", MATRIX).rename(tmp_path / "W.CSV")
    assert_same(make_topology(path, 4), make_topology(MATRIX, 4))
    assert set(READERS) == {".npy", ".csv", ".txt", ".json", ".gml", ".graphml", ".edgelist", ".edges"}


def test_text_matrix_may_have_comments_blank_lines_and_either_separator(tmp_path: Path) -> None:
    path = tmp_path / "w.txt"
    path.write_text("# two workers\n\n0.75, 0.25  # rank 0\n0.25, 0.75\n")
    assert make_topology(path, 2).in_weights(0, 0) == {1: 0.25}


def test_node_link_data_may_say_links_as_older_networkx_wrote(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(nx.node_link_data(DIRECTED, edges="links")))
    assert_same(make_topology(path, 4), make_topology(DIRECTED, 4))


def test_topology_is_named_by_its_path(tmp_path: Path) -> None:
    path = write(tmp_path / "w.npy", MATRIX)
    assert make_topology(path, 4).name == str(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.csv", "", "cannot be read as .csv: it is empty"),
        ("w.csv", "# nothing\n", "cannot be read as .csv: it is empty"),
        ("w.csv", "1,a\nb,2\n", "cannot be read as .csv"),
        ("w.txt", "1 2\n3\n", "cannot be read as .txt"),
        ("w.npy", "no array", "cannot be read as .npy"),
        ("w.json", "{", "cannot be read as .json"),
        ("w.json", "{}", "neither nested lists"),
        ("w.json", "3", "neither nested lists"),
        ("w.json", '{"nodes": [{"id": 0}]}', "cannot be read as .json"),
        ("w.gml", "graph [", "cannot be read as .gml"),
        ("w.graphml", "<graphml", "cannot be read as .graphml"),
        ("w.edgelist", "0 1\n1 2 0.5\n", "every line must have two ranks"),
        ("w.edgelist", "0 a\n", "cannot be read as .edgelist"),
        ("w.edges", "0 1 x\n", "cannot be read as .edges"),
    ],
)
def test_file_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TopologyError, match=message) as caught:
        read_topology(path)
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is not None


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(TopologyError, match=r"cannot be read as \.npy: Object arrays"):
        read_topology(tmp_path / "w.npy")


def test_missing_file_and_unknown_suffix_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"w\.csv' does not exist"):
        make_topology(tmp_path / "w.csv", 4)
    with pytest.raises(ConfigError, match=r"suffix '\.xls'; files that can be read: \.npy, \.csv"):
        read_topology(tmp_path / "w.xls")


def test_file_s_content_is_checked_like_an_object(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"w\.npy': the mixing matrix is 4 x 4, but there are 5 workers"):
        make_topology(write(tmp_path / "w.npy", MATRIX), 5)
    with pytest.raises(TopologyError, match=r"g\.gml' is a graph of 4 nodes, but there are 5 workers"):
        make_topology(write(tmp_path / "g.gml", DIRECTED), 5)
