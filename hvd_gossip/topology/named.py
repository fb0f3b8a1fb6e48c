"""The topologies that go by a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import networkx as nx

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.base_k import BaseGraph
from hvd_gossip.topology.cayley import CayleyTopology, ExponentialTopology, Offset
from hvd_gossip.topology.given import from_graph
from hvd_gossip.topology.hierarchical import HierarchicalTopology
from hvd_gossip.topology.matching import BipartitePairs, RandomMatchings


@dataclass(frozen=True)
class Options:
    """What shapes a named topology beside its size; see `make_topology`."""

    seed: int = 0
    weights: str = "metropolis"
    laziness: float = 0.0
    hosts: Sequence[int] | None = None


def ring(size: int, options: Options) -> Topology:
    """Each rank with rank - 1 and rank + 1."""
    return CayleyTopology("ring", (size,), [[(1,), (-1,)]], options.laziness)


def complete(size: int, options: Options) -> Topology:
    """Every rank with every other one; W = 1/n everywhere."""
    return CayleyTopology("complete", (size,), [[(step,) for step in range(1, size)]], options.laziness)


def star(size: int, options: Options) -> Topology:
    """Rank 0 with every other rank. Rank 0 carries the traffic of all."""
    return from_graph(nx.star_graph(size - 1), size, name="star", weights=options.weights, laziness=options.laziness)


def torus(size: int, options: Options) -> Topology:
    """A two-dimensional grid that wraps around, as square as the size allows: a x b with a the largest divisor of size
    up to its square root.

    A prime size has no such grid and gives a ring, with a ring's slow mixing; 2 x b is a ring of pairs.
    """
    short = max(side for side in range(1, math.isqrt(size) + 1) if size % side == 0)
    return CayleyTopology("torus", (short, size // short), [_steps_along(2)], options.laziness)


def hypercube(size: int, options: Options) -> Topology:
    """Ranks whose binary numbers differ in one digit.

    Raises:
        TopologyError: the size is not a power of two.
    """
    if size & (size - 1):
        below = 1 << (size.bit_length() - 1)
        raise TopologyError(
            f"topology 'hypercube' needs a power of two workers ({below} or {2 * below}), not {size}; exponential and "
            "one-peer-exponential mix as fast with any number"
        )
    dimensions = size.bit_length() - 1
    return CayleyTopology("hypercube", (2,) * dimensions, [_steps_along(dimensions)], options.laziness)


def exponential(size: int, options: Options) -> Topology:
    """Directed: rank x gives to x + 1, x + 2, x + 4 ... in every round (Ying et al., NeurIPS 2021)."""
    return ExponentialTopology("exponential", (size,), [_powers_of_two(size)], options.laziness)


def one_peer_exponential(size: int, options: Options) -> Topology:
    """Directed: in round k rank x gives half to x + 2^(k mod ceil(log2 n)) (Assran et al., ICML 2019).

    A period averages exactly if the size is a power of two; with any other the mixing is somewhat slower.
    """
    rounds = [[offset] for offset in _powers_of_two(size)] or [[]]
    return ExponentialTopology("one-peer-exponential", (size,), rounds, options.laziness)


def random_matching(size: int, options: Options) -> Topology:
    """Pairs drawn afresh each round from (seed, round)."""
    return RandomMatchings("random-matching", size, options.seed, options.laziness)


def bipartite(size: int, options: Options) -> Topology:
    """Even ranks meet odd ranks in rotation."""
    return BipartitePairs("bipartite", size, options.laziness)


def base_graph(base: int, size: int, options: Options) -> Topology:
    """At most base - 1 meetings a round; a period averages exactly at any size (Takezawa et al., NeurIPS 2023)."""
    return BaseGraph(f"base-{base}", size, base, options.laziness)


def chain(size: int, options: Options) -> Topology:
    """Each rank with rank - 1 and rank + 1, the ends not joined: the tree of the largest diameter."""
    return from_graph(nx.path_graph(size), size, name="chain", weights=options.weights, laziness=options.laziness)


def binary_tree(size: int, options: Options) -> Topology:
    """Rank x with its parent, (x - 1) // 2, and its children, 2 x + 1 and 2 x + 2: at most 2 log2(n) steps apart."""
    tree: nx.Graph[int] = nx.Graph()
    tree.add_nodes_from(range(size))
    tree.add_edges_from(((rank - 1) // 2, rank) for rank in range(1, size))
    return from_graph(tree, size, name="binary-tree", weights=options.weights, laziness=options.laziness)


def hierarchical(size: int, options: Options) -> Topology:
    """Exact averages within hosts alternate with one-peer exponential rounds across hosts.

    Raises:
        ConfigError: it is not known which rank is on which host.
    """
    hosts = [0] if size == 1 and options.hosts is None else options.hosts
    if hosts is None:
        raise ConfigError("topology 'hierarchical' needs to know the host of each rank (hosts=[...])")
    return HierarchicalTopology("hierarchical", hosts, options.laziness)


def _powers_of_two(size: int) -> list[Offset]:
    return [(2**k,) for k in range((size - 1).bit_length())]


def _steps_along(dimensions: int) -> list[Offset]:
    """One step forwards and backwards along each side of a grid."""
    unit = [tuple(int(axis == along) for axis in range(dimensions)) for along in range(dimensions)]
    return unit + [tuple(-step for step in offset) for offset in unit]


@dataclass(frozen=True)
class Named:
    """A registered topology: one line for help and documentation, and how it is built."""

    description: str
    build: Callable[[int, Options], Topology]


NAMED: Mapping[str, Named] = {
    "ring": Named("each rank with its two neighbours on a ring", ring),
    "complete": Named("every rank with every other one", complete),
    "star": Named("rank 0 with every other rank", star),
    "torus": Named("a two-dimensional grid that wraps around, as square as possible (a ring if n is prime)", torus),
    "hypercube": Named("ranks whose binary numbers differ in one digit (n a power of two)", hypercube),
    "exponential": Named("directed; to the ranks 1, 2, 4, 8 ... places further, all in each round", exponential),
    "one-peer-exponential": Named(
        "directed; to one rank a round, 1, 2, 4, 8 ... places further in turn; any n", one_peer_exponential
    ),
    "random-matching": Named("random pairs, drawn afresh each round from the seed", random_matching),
    "bipartite": Named("pairs of an even and an odd rank, in rotation", bipartite),
    **{
        f"base-{base}": Named(
            f"up to {base - 1} others a round; a period averages exactly, any n", partial(base_graph, base)
        )
        for base in (2, 3, 4, 5)
    },
    "chain": Named("a tree: each rank with the ranks before and after it", chain),
    "binary-tree": Named("a tree: each rank with its parent and its two children", binary_tree),
    "hierarchical": Named("all ranks of a host, then one rank on another host, in turn", hierarchical),
}
