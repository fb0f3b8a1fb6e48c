"""Dense within a host, sparse across hosts: cheap links carry most of the mixing, slow ones one message a rank.

The idea of alternating heavy rounds inside a host with light ones between hosts is Decent-DP's ("From Promise to
Practice", ICLR 2025: its alternating exponential ring).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx

from hvd_gossip.topology.bipartite import Pairs, exponential_pairs, graph_pairs
from hvd_gossip.topology.table import MixingRound, TableTopology


class HierarchicalTopology(TableTopology):
    """Rounds of exact averaging within each host alternate with one-peer exponential rounds across hosts.

    Across, a rank meets ranks of its own local index only: the k-th such round shifts each group of equal local index
    by 2^k hosts, with weight 1/2. Hosts may differ in size (higher local indices then exist on some hosts only and
    shift among those; a rank alone with its local index keeps everything): every round is doubly stochastic still.
    One host makes it the complete graph; hosts of one rank each leave the rounds across only.
    """

    def __init__(self, name: str, hosts: Sequence[int], laziness: float = 0.0) -> None:
        """Builds the topology.

        Args:
            hosts: index of each rank's host; the ranks of a host need not follow each other.
            laziness: share of the identity in each round, in [0, 1).
        """
        self._members = _ranks_by_host(hosts)
        inside = _inside(self._members, len(hosts))
        across = [_across(self._members, len(hosts), k) for k in range((len(self._members) - 1).bit_length())]
        if not across:
            rounds = [inside]
        elif len(self._members) == len(hosts):
            rounds = across
        else:
            rounds = [round_ for shift in across for round_ in (inside, shift)]
        super().__init__(name, rounds, laziness)

    def pairs(self) -> Pairs:
        """All pairs within a host whose local indices differ in parity, and ranks of equal local index across hosts
        at the odd distances of the exponential family's bipartite form."""
        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(self.size))
        for ranks in self._members:
            graph.add_edges_from((a, b) for a in ranks[0::2] for b in ranks[1::2])
        initiators, neighbours = exponential_pairs(len(self._members))
        for here in initiators:
            for there in neighbours[here]:
                graph.add_edges_from(zip(self._members[here], self._members[there], strict=False))
        return graph_pairs(graph, self.name)


def _ranks_by_host(hosts: Sequence[int]) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for rank, host in enumerate(hosts):
        members.setdefault(host, []).append(rank)
    return [members[host] for host in sorted(members)]


def _inside(members: Sequence[Sequence[int]], size: int) -> MixingRound:
    shares: list[Mapping[int, float]] = [{}] * size
    for ranks in members:
        for rank in ranks:
            shares[rank] = {other: 1 / len(ranks) for other in ranks if other != rank}
    return MixingRound.of_shares(shares)


def _across(members: Sequence[Sequence[int]], size: int, k: int) -> MixingRound:
    shares: list[Mapping[int, float]] = [{}] * size
    for local in range(max(len(ranks) for ranks in members)):
        group = [ranks[local] for ranks in members if len(ranks) > local]
        if len(group) > 1:
            # A smaller group runs through its own shifts and starts again: every round of it moves something.
            shift = 2 ** (k % (len(group) - 1).bit_length())
            for place, rank in enumerate(group):
                shares[rank] = {group[(place + shift) % len(group)]: 0.5}
    return MixingRound.of_shares(shares)
