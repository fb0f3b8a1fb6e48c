"""Base-(k+1) graphs: every worker has the exact mean after a finite number of rounds, for any number of workers.

Takezawa, Sato, Bao, Niwa, Yamada: "Beyond Exponential Graph: Communication-Efficient Topologies for Decentralized Learning
via Finite-time Convergence", NeurIPS 2023, Algorithms 1 to 3. No worker meets more than k others in a round.

1. Hyper-hypercube: n a product of factors up to k + 1. Ranks are numbers in that mixed radix; round l averages the ranks that
   differ in the l-th digit only.
2. Simple base graph: n = a_1 (k+1)^p_1 + ... + a_L (k+1)^p_L, p_1 > ... > p_L. Part l, a_l blocks of (k+1)^p_l ranks,
   averages within itself, so that its ranks are alike. Then, part after part, each rank of the later parts meets one rank
   of each block of part l, with the weight that gives each of these blocks the mean of all,

       w = s / (a_l s + r),          s = (k+1)^p_l ranks a block, r ranks in the later parts (r < s),

   and the blocks average within themselves. The later parts, as a whole, have the mean of all as well, and go on.
3. Base graph: n = p q, p the largest divisor whose prime factors are at most k + 1. p simple base graphs of q ranks side by
   side, then q hyper-hypercubes of p ranks across them; or the simple base graph of all, where that has fewer rounds.

At most 2 log_(k+1)(n) + 2 rounds (the paper's Theorem 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain

from hvd_gossip.topology.table import MixingRound, TableTopology

Ranks = Sequence[int]
Edges = Mapping[tuple[int, int], float]
"""W[a, b] = W[b, a] of the pairs (a, b) that meet in a round."""


class BaseGraph(TableTopology):
    """The Base-(k+1) graph: symmetric rounds of at most k meetings a rank, whose product over a period is 11^T/n.

    Args:
        name: what `--topology` says.
        size: number of workers.
        base: k + 1, at least 2.
        laziness: share of the identity in each round, in [0, 1); any but 0 makes a period's average inexact.
    """

    def __init__(self, name: str, size: int, base: int, laziness: float = 0.0) -> None:
        self._exact = laziness == 0.0
        rounds = base_rounds(range(size), base) or [{}]
        super().__init__(name, [_mixing(edges, size) for edges in rounds], laziness)

    def spectral_gap(self) -> float:
        """1: a period averages exactly. Mixed lazily: from dense matrices, O(size^3) a round."""
        return 1.0 if self._exact else super().spectral_gap()


def base_rounds(ranks: Ranks, base: int) -> list[Edges]:
    """The paper's Algorithm 3: the shorter of the simple base graph and that of a divisor's worth of ranks side by side."""
    simple = _simple_rounds(ranks, base)
    divisors = (divisor for divisor in range(1, len(ranks) + 1) if len(ranks) % divisor == 0)
    across = max(divisor for divisor in divisors if _radices(divisor, base) is not None)
    each = len(ranks) // across
    groups = [_simple_rounds(ranks[start : start + each], base) for start in range(0, len(ranks), each)]
    crossings = [_hyper_hypercube(ranks[place::each], base) for place in range(each)]
    combined = [*_side_by_side(groups), *_side_by_side(crossings)]
    return combined if len(combined) < len(simple) else simple


def _hyper_hypercube(ranks: Ranks, base: int) -> list[Edges]:
    """Algorithm 1; no prime factor of the number of ranks exceeds `base`."""
    rounds, stride = [], 1
    for radix in _radices(len(ranks), base) or ():
        first = [place for place in range(len(ranks)) if place // stride % radix == 0]
        rounds.append(_averages(ranks[place : place + stride * radix : stride] for place in first))
        stride *= radix
    return rounds


@cache
def _radices(number: int, base: int) -> tuple[int, ...] | None:
    """The fewest factors from 2 to `base` with this product; None if it has a prime factor beyond `base`."""
    if number == 1:
        return ()
    shorter = {last: _radices(number // last, base) for last in range(2, base + 1) if number % last == 0}
    return min(((*rest, last) for last, rest in shorter.items() if rest is not None), key=len, default=None)


def _simple_rounds(ranks: Ranks, base: int) -> list[Edges]:
    """Algorithm 2."""
    if _radices(len(ranks), base) is not None:
        return _hyper_hypercube(ranks, base)
    parts = _parts(ranks, base)
    within = [_hyper_hypercube(list(chain(*blocks)), base) for blocks in parts]
    opening = [_union(_again(rounds, number) for rounds in within) for number in range(len(within[0]))]
    # The first part's exchange, then its blocks' own rounds; every other part begins later and has fewer.
    closing = range(1 + len(_hyper_hypercube(parts[0][0], base)))
    return [
        *opening,
        *(_union(_closing(parts, part, number, base) for part in range(len(parts))) for number in closing),
    ]


def _parts(ranks: Ranks, base: int) -> list[list[Ranks]]:
    """For each digit of the number of ranks that is not 0, highest first, so many blocks of the digit's power."""
    power = 1
    while power * base <= len(ranks):
        power *= base
    parts, start = [], 0
    while power:
        blocks = []
        while len(ranks) - start >= power:
            blocks.append(ranks[start : start + power])
            start += power
        parts.append(blocks)
        power //= base
    return [blocks for blocks in parts if blocks]


def _closing(parts: Sequence[Sequence[Ranks]], part: int, number: int, base: int) -> Edges:
    """What a part does in a round after the opening: nothing of its own before its exchange with the later parts."""
    blocks, later = parts[part], list(chain(*chain(*parts[part + 1 :])))
    if number == part and later:
        return _exchange(blocks, later, base)
    if number > part:
        return _union(_again(_hyper_hypercube(block, base), number - part - 1) for block in blocks)
    return {}


def _exchange(blocks: Sequence[Ranks], later: Ranks, base: int) -> Edges:
    """Each later rank with one of each block; the others, which are alike, average among themselves meanwhile."""
    size = len(blocks[0])
    weight = size / (size * len(blocks) + len(later))
    meetings = {(block[place], rank): weight for place, rank in enumerate(later) for block in blocks}
    idle = list(chain(*(block[len(later) :] for block in blocks)))
    return {**meetings, **_averages(idle[start : start + base] for start in range(0, len(idle), base))}


def _averages(groups: Iterable[Ranks]) -> Edges:
    """Every group takes its own mean."""
    return {
        (rank, other): 1 / len(group) for group in groups for place, rank in enumerate(group) for other in group[:place]
    }


def _again(rounds: Sequence[Edges], number: int) -> Edges:
    """The rounds over and over: who has its mean already keeps it, and what updates moved apart meets again."""
    return rounds[number % len(rounds)] if rounds else {}


def _side_by_side(groups: Sequence[Sequence[Edges]]) -> list[Edges]:
    """Equally many rounds of disjoint ranks at once."""
    return [_union(rounds) for rounds in zip(*groups, strict=True)]


def _union(rounds: Iterable[Edges]) -> Edges:
    return {pair: weight for edges in rounds for pair, weight in edges.items()}


def _mixing(edges: Edges, size: int) -> MixingRound:
    shares: list[dict[int, float]] = [{} for _ in range(size)]
    for (rank, other), weight in edges.items():
        shares[rank][other] = shares[other][rank] = weight
    return MixingRound.of_shares(shares)
