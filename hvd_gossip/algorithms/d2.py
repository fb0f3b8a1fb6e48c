"""D2: decentralized training over decentralized data.

Tang, Lian, Yan, Zhang, Liu: "D2: Decentralized Training over Decentralized Data", ICML 2018, Algorithm 1.

    x_i(1)   = sum_j W_ij [ x_j(0) + u_j(0) ],
    x_i(k+1) = sum_j W_ij [ 2 x_j(k) - x_j(k-1) + u_j(k) - u_j(k-1) ],          u = -lr g for plain SGD.

W is symmetric, doubly stochastic, the same in every round, and its smallest eigenvalue is above -1/3; where it is not, (W +
I) / 2 is used, as the paper says. D-PSGD's bias by data that differ between workers (the paper's zeta^2) is gone: at a fixed
point of D2 every worker has the same x and the sum of all updates is zero.

What is computed is the same iterates in another form. Let h_i(k) be what i sends in round k, and c_i(k) = sum_j W_ij (h_j -
h_i)(k) what mixing adds to it. Then x_i(k) = h_i(k-1) + c_i(k-1), and with h_i(k) = 2 x_i(k) - x_i(k-1) + u_i(k) - u_i(k-1)
as above,

    h_i(k) - x_i(k) - u_i(k) = x_i(k) - x_i(k-1) - u_i(k-1)
                             = [ h_i(k-1) - x_i(k-1) - u_i(k-1) ] + c_i(k-1) = c_i(0) + ... + c_i(k-1):

D-PSGD in sequential order, each update corrected by all that mixing has brought so far. `flows.EdgeMemory` keeps that sum
edge by edge. With a schedule, u(k) and u(k-1) have different rates, as the paper's equation has it; what is remembered has
adapted to a new rate after about 1 / (spectral gap) rounds, and the mean over the workers is right in every step.

Exchanged: h. Kept: the sum over the workers changes by their updates alone.
"""

from __future__ import annotations

from hvd_gossip.algorithms.flows import EdgeMemory
from hvd_gossip.algorithms.lanes import both_finite
from hvd_gossip.algorithms.synchronous import Round
from hvd_gossip.buffers.arrays import add_into
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.transport.endpoint import Array


class D2(EdgeMemory):
    """D-PSGD whose updates are corrected for data that differ. Memory: one correction, and one for each neighbour."""

    name = "d2"
    paper = "Tang et al., D2: Decentralized Training over Decentralized Data, ICML 2018"
    needs = "lazy-symmetric"
    waits_for = "its neighbours"
    memory = "1 x, and 1 x a neighbour"
    good_for = "data that differ between workers, on a fixed graph of few neighbours"
    bad_for = "a straggler (its neighbours wait); learning rates that jump"

    def mix(self, round_: Round, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
        for peer, theirs in arrived.items():
            if both_finite(mine, theirs):
                flow = self.flow(round_, peer, chunk, theirs, mine)
                self.carry(peer, chunk, flow)
                with chunk.space.engine(chunk):
                    add_into(chunk.correction, chunk.correction, flow)
                    chunk.pending = True
            else:
                self.context.counters.refuse(peer)
                self.retract(peer, chunk)
