"""Topologies from files: graphs and mixing matrices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import networkx as nx
import numpy as np

from hvd_gossip.errors import ConfigError, TopologyError

_UNREADABLE = (OSError, ValueError, TypeError, LookupError, ParseError, nx.NetworkXException)


def read_topology(path: Path) -> Any:
    """Reads a graph or matrices; the suffix says how.

    * `.npy`: a (n, n) matrix, or (rounds, n, n) for one that varies.
    * `.csv`, `.txt`: a matrix, a row a line, values separated by commas or blanks; `#` starts a comment.
    * `.json`: a matrix or a list of matrices as nested lists, or networkx's node-link data.
    * `.gml`, `.graphml`: a graph.
    * `.edgelist`, `.edges`: a line an edge: two ranks and, on all lines or none, a weight. A line `# directed` makes the
      graph directed (from the first rank of a line to the second).

    Returns:
        A networkx graph, or an array-like of matrices: neither is checked here.

    Raises:
        ConfigError: the file does not exist, or its suffix is none of these.
        TopologyError: its content cannot be read.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"topology file {str(path)!r} has the suffix {path.suffix!r}; files that can be read: {', '.join(READERS)}"
        )
    if not path.is_file():
        raise ConfigError(f"topology file {str(path)!r} does not exist")
    try:
        return reader(path)
    except _UNREADABLE as error:
        raise TopologyError(f"topology file {str(path)!r} cannot be read as {path.suffix}: {error}") from error


def _read_npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _lines(path: Path) -> list[str]:
    """The lines that say something, without their comments."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    filled = [line for line in lines if line]
    if not filled:
        raise ValueError("it is empty")
    return filled


def _read_text_matrix(path: Path) -> Any:
    lines = _lines(path)
    return np.loadtxt(lines, delimiter="," if "," in lines[0] else None, ndmin=2)


def _read_json(path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, list):
        return content
    if not isinstance(content, dict) or "nodes" not in content:
        raise ValueError("it holds neither nested lists (a matrix, or one a round) nor networkx's node-link data")
    # networkx wrote "links" before 3.4 and writes "edges" since.
    key = "edges" if "edges" in content else "links"
    return nx.node_link_graph({**content, "edges": content[key]}, edges="edges")


def _read_edge_list(path: Path) -> Any:
    directed = any(line.strip().lower() == "# directed" for line in path.read_text(encoding="utf-8").splitlines())
    lines = _lines(path)
    widths = sorted({len(line.split()) for line in lines})
    if widths not in ([2], [3]):
        raise ValueError("every line must have two ranks, or every line two ranks and a weight")
    graph: nx.Graph[int] = nx.DiGraph() if directed else nx.Graph()
    data: Any = [("weight", float)] if widths == [3] else False
    return nx.parse_edgelist(lines, nodetype=int, create_using=graph, data=data)


READERS: Mapping[str, Callable[[Path], Any]] = {
    ".npy": _read_npy,
    ".csv": _read_text_matrix,
    ".txt": _read_text_matrix,
    ".json": _read_json,
    ".gml": nx.read_gml,
    ".graphml": nx.read_graphml,
    ".edgelist": _read_edge_list,
    ".edges": _read_edge_list,
}
"""Suffix -> reader of what `--topology` may name."""
