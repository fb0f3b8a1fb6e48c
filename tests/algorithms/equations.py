"""The equations of the algorithms' papers, in plain NumPy: all workers' parameters as the rows of one matrix.

An exchange "overlap" of x(k) begins after the k-th update, so the first update mixes nothing (W(-1) = I) and the last exchange
is folded in when the workers depart.
"""

from __future__ import annotations

import math

import networkx as nx
import numpy as np

from hvd_gossip.compressors import make_compressor
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing import Run


def allreduce(run: Run) -> Vector:
    """x(k+1) = x(k) + mean_j u_j(x(k)), from where all workers begin; Patarasuk and Yuan, JPDC 2009."""
    x = run.start
    for _ in range(run.steps):
        x = x + run.updates(x).mean(axis=0)
    return x


def dpsgd_overlap(run: Run) -> Vector:
    """x(k+1) = W x(k) + u(x(k)); Lian et al., NeurIPS 2017, Algorithm 1."""
    x = run.start
    for step in range(run.steps):
        x = run.exchange_after(step) @ x + run.updates(x)
    return run.exchange_after(run.steps) @ x


def dpsgd_sequential(run: Run) -> Vector:
    """x(k+1) = W (x(k) + u(x(k)))."""
    x = run.start
    for step in range(run.steps):
        x = run.exchange_after(step + 1) @ (x + run.updates(x))
    return x


def sgp_overlap(run: Run) -> Vector:
    """x(k+1) = P x(k) + u(z(k)), w(k+1) = P w(k), z = x / w; Nedic and Olshevsky, IEEE TAC 2015."""
    x, w = run.start, np.ones((run.topology.size, 1))
    for step in range(run.steps):
        P = run.exchange_after(step)
        x, w = P @ x + run.updates(x / w), P @ w
    P = run.exchange_after(run.steps)
    return P @ x / (P @ w)


def sgp_sequential(run: Run) -> Vector:
    """x(k+1) = P (x(k) + u(z(k))), w(k+1) = P w(k), z = x / w; Assran et al., ICML 2019, Algorithm 1."""
    x, w = run.start, np.ones((run.topology.size, 1))
    for step in range(run.steps):
        P = run.exchange_after(step + 1)
        x, w = P @ (x + run.updates(x / w)), P @ w
    return x / w


def osgp(run: Run) -> Vector:
    """x_i(k+1) = p_ii(k) x_i(k) + sum_j p_ij(k+1-tau) x_j(k+1-tau) + u_i(z_i(k)), w alike; Assran et al., ICML 2019, Algorithm 2
    with every message as late as it may be. An exact average waits for all that is under way, and comes one step later."""
    x, w = run.start, np.ones((run.topology.size, 1))
    flights: dict[int, tuple[Vector, Vector]] = {}
    tau, every = run.settings.get("tau", 1), run.settings.get("global_average_every", 0)
    for step in range(1, run.steps + 1):
        updates = run.updates(x / w)
        x, w = _landed(x, w, flights, step)
        x = x + updates
        exact = every > 0 and step % every == 0
        if exact:
            x, w = _landed(x, w, flights, math.inf)
        P = run.exchange_after(step)
        kept = np.diag(np.diag(P))
        flights[step + (1 if exact else tau)] = (P - kept) @ x, (P - kept) @ w
        x, w = kept @ x, kept @ w
    x, w = _landed(x, w, flights, math.inf)
    return x / w


def _landed(x: Vector, w: Vector, flights: dict[int, tuple[Vector, Vector]], step: float) -> tuple[Vector, Vector]:
    """(x, w) with what has arrived by the step."""
    for due in [due for due in flights if due <= step]:
        brought, weight = flights.pop(due)
        x, w = x + brought, w + weight
    return x, w


CHUNK = 2
"""Elements of a chunk in the simulations that are compared with these equations."""


class PublicCopies:
    """x^ of Koloskova, Stich, Jaggi, ICML 2019, Algorithm 2, and what an exchange makes of it. x^ = 0 and C = I at first."""

    def __init__(self, run: Run) -> None:
        self.run, self.known, self.made = run, np.zeros_like(run.start), 0

    def compressed(self, rank: int, difference: Vector) -> Vector:
        """C of one worker's difference, a chunk at a time."""
        name, ratio = self.run.settings.get("compressor", "top-k"), self.run.settings.get("compression_ratio", 0.1)
        compressor = make_compressor(name if self.made else "identity", ratio)
        out = np.empty_like(difference)
        for number, start in enumerate(range(0, len(out), CHUNK)):
            rng = np.random.default_rng((self.run.settings.get("seed", 0), rank, self.made, number))
            compressor.decompress(
                compressor.compress(difference[start : start + CHUNK], rng), out[start : start + CHUNK]
            )
        return out

    def move(self, step: int, x: Vector) -> Vector:
        """What the exchange after the step-th step adds to x: gamma (W - I) x^, once x^ has moved."""
        if self.run.averages_after(step):
            self.known[:] = x.mean(axis=0)
            self.made += 1
            moved: Vector = x.mean(axis=0) - x
            return moved
        if not self.run.exchanges_after(step):
            return np.zeros_like(x)
        self.known += np.stack([self.compressed(rank, x[rank] - self.known[rank]) for rank in range(len(x))])
        self.made += 1
        moved = self.run.settings["consensus_step"] * (self.run.topology.matrix() @ self.known - self.known)
        return moved


def choco_sequential(run: Run) -> Vector:
    """x(k+1/2) = x(k) + u(x(k)), x^(k+1) = x^(k) + C(x(k+1/2) - x^(k)), x(k+1) = x(k+1/2) + gamma (W - I) x^(k+1)."""
    x, public = run.start, PublicCopies(run)
    for step in range(1, run.steps + 1):
        x = x + run.updates(x)
        x = x + public.move(step, x)
    return x


def choco_overlap(run: Run) -> Vector:
    """x^(k+1) = x^(k) + C(x(k) - x^(k)), x(k+1) = x(k) + gamma (W - I) x^(k+1) + u(x(k))."""
    x, public, moved = run.start, PublicCopies(run), np.zeros_like(run.start)
    for step in range(1, run.steps + 1):
        x = x + moved + run.updates(x)
        moved = public.move(step, x)
    return x + moved


class Messages:
    """m of Vogels et al., NeurIPS 2021, Algorithm 1: as if everybody had always been where the receiver begins."""

    def __init__(self, run: Run) -> None:
        self.run, self.tree = (
            run,
            nx.from_numpy_array(run.topology.matrix() - np.diag(run.topology.matrix().diagonal())),
        )
        self.beyond: dict[tuple[int, int], int] = {}
        for sender, receiver in self.tree.to_directed().edges:
            cut = nx.restricted_view(self.tree, [], [(sender, receiver)])
            self.beyond[sender, receiver] = len(nx.node_connected_component(cut, sender))
        self.sums = {edge: count * run.start[edge[1]] for edge, count in self.beyond.items()}

    def mean(self, step: int, x: Vector) -> Vector:
        """What the exchange after the step-th step makes of x."""
        if self.run.averages_after(step):
            self.sums = {edge: count * x.mean(axis=0) for edge, count in self.beyond.items()}
            return np.tile(x.mean(axis=0), (len(x), 1))
        if not self.run.exchanges_after(step):
            return x
        self.sums = {
            (i, j): x[i] + sum((self.sums[k, i] for k in self.tree[i] if k != j), np.zeros_like(x[i]))
            for i, j in self.sums
        }
        heard = [sum((self.sums[j, i] for j in self.tree[i]), np.zeros_like(x[i])) for i in range(len(x))]
        means: Vector = (x + np.stack(heard)) / len(x)
        return means

    def conserved(self, x: Vector) -> Vector:
        """sum_i x_i + (1/n) sum_{i, k} (|S_i| - 1) m_ki."""
        size = len(x)
        weights = {edge: (size - count - 1) / size for edge, count in self.beyond.items()}
        total: Vector = x.sum(axis=0) + sum(weights[edge] * message for edge, message in self.sums.items())
        return total


def relaysgd_sequential(run: Run) -> Vector:
    """x(t+1/2) = x(t) + u(x(t)), m_ij(t) = x_i(t+1/2) + sum_{k != j} m_ki(t-1), x_i(t+1) = (x_i(t+1/2) + sum_j m_ji(t)) / n."""
    x, messages = run.start, Messages(run)
    for step in range(1, run.steps + 1):
        x = messages.mean(step, x + run.updates(x))
    return x


def relaysgd_overlap(run: Run) -> Vector:
    """m_ij(t) = x_i(t) + sum_{k != j} m_ki(t-1), x_i(t+1) = (x_i(t) + sum_j m_ji(t)) / n + u_i(x_i(t))."""
    x, messages, moved = run.start, Messages(run), np.zeros_like(run.start)
    for step in range(1, run.steps + 1):
        x = x + moved + run.updates(x)
        moved = messages.mean(step, x) - x
    return x + moved
