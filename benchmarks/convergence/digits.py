"""scikit-learn's digits for simulated workers: images, and how they are shared out."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from hvd_gossip.simulate_classification import Labelled, share_by_dirichlet, share_by_label

TEST_IMAGES, CLASSES = 357, 10
BY_LABEL = "by label"


def load() -> tuple[Labelled, Labelled]:
    """Training and test images: float64 (n, 64) in [0, 1]; the same division always."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    inputs, labels = digits.data[order] / 16, digits.target[order].astype(np.int64)
    whole = Labelled(inputs, labels)
    return Labelled(*(part[:-TEST_IMAGES] for part in whole)), Labelled(*(part[-TEST_IMAGES:] for part in whole))


def share(data: Labelled, size: int, skew: str, seed: int) -> list[Labelled]:
    """Each worker's images.

    Args:
        skew: "by label", or the alpha of a Dirichlet distribution.
    """
    if skew == BY_LABEL:
        shares = share_by_label(data.labels, size, seed)
    else:
        shares = share_by_dirichlet(data.labels, size, float(skew), seed)
    return [Labelled(data.inputs[one], data.labels[one]) for one in shares]
