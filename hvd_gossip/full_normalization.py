"""Full Normalization (FN): the mathematics that the layers of all frameworks share.

Xiangru Lian and Ji Liu, "Revisit Batch Normalization: New Understanding and Refinement via Composition Optimization",
AISTATS 2019 (arXiv 1810.06177). Batch normalization minimizes another function than one would like: the loss of a network
that is normalized by the statistics of whatever batch comes, which are far from the data set's where batches are tiny or hold
one class. FN minimizes

    F(theta) = E_b [ f_b(theta, E_b' [G_b'(theta)]) ],    G_b(theta) = (mean of x, mean of x^2) over batch b, for each channel,

the loss normalized by the statistics of the full data set. It is a composition of expectations, so a batch alone gives no
unbiased gradient; compositional optimization (Wang, Fang, Liu, "Stochastic Compositional Gradient Descent", Mathematical
Programming 161, 2017: SCGD) tracks the inner expectation by running estimates of a step size alpha,

    M(k) = (1 - alpha) M(k-1) + alpha G_k(theta(k)),                                     (1)

takes the outer function's derivatives there, and multiplies them by the batch's Jacobian of G:

    d f_k/d theta + (d G_k/d theta)^T d f_k/d M,    both at M(k).                        (2)

**What is from the paper**: F, the running estimates (1) by compositional optimization, that training normalizes by them, and
that gradients pass through them. Only its abstract and introduction were at hand when this was written, not its listing of
the algorithm: (2) is SCGD applied to F. **What is ours**:

- With M = (m, s), variance v = s - m^2. Subtracting would lose all digits far from zero; (1) is the same as, and computed as,
      m' = (1 - alpha) m + alpha m_k,    v' = (1 - alpha) (v + alpha (m_k - m)^2) + alpha v_k,
  the weighted merge of two sets (Chan, Golub, LeVeque 1979), v_k being the batch's variance about its own mean, not "unbiased".
- With r = 1/sqrt(v + eps), x' = (x - m) r, y = w x' + b, d what arrives at y, and N values in the batch, (2) works out as
      dx = r (w d - h_1/N - x' h_2/N),    h = (sum w d, sum w d x'),                     (3)
  batch normalization's gradient (Ioffe and Szegedy 2015) with the estimates in the place of the batch's statistics.
- SCGD draws the samples of the inner Jacobian and of the outer derivative independently. One batch gives both here, and their
  covariance, a share of 1/N, is no small matter at batch 2, or where one class makes up a batch. So h is tracked as M is,
      h(k) = (1 - alpha) h(k-1) + alpha h_k,                                             (4)
  and takes h_k's place in (3). `track_gradients=False` uses h_k itself. Measured in benchmarks/convergence.
- alpha = max(momentum, 1/k) for the k-th batch: all batches count alike until the running estimates have forgotten their start.

With alpha = 1 all this is batch normalization. Estimates take in finite values only: one overflow would stay in them for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def step_size(batches: Any, floor: float, maximum: Callable[[Any, Any], T]) -> T:
    """alpha for a batch.

    Args:
        batches: seen so far, this one included; a floating scalar.
        floor: the layer's momentum, that of PyTorch; 0 averages all batches alike.
        maximum: of two scalars.
    """
    return maximum(1.0 / batches, floor)


def track(before: Any, new: Any, alpha: Any) -> Any:
    """(1) and (4): (1 - alpha) before + alpha new; exactly `new` where alpha is 1."""
    return (1.0 - alpha) * before + alpha * new


def track_variance(before: Any, new: Any, apart: Any, alpha: Any) -> Any:
    """The variance that belongs to (1), from the two variances and the distance between the two means."""
    return (1.0 - alpha) * (before + alpha * apart * apart) + alpha * new


def check_momentum(momentum: float) -> None:
    """Raises ValueError if a weight of a batch is none."""
    if not 0 < momentum <= 1:
        raise ValueError(
            f"Full Normalization needs 0 < weight of a batch <= 1, not {momentum:g}: it trains with its estimates"
        )
