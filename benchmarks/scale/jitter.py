"""How much real training steps differ in length: a sample measured once, kept beside this module, and drawn from.

    python -m benchmarks.scale.jitter            # measures again and writes jitter.json

The sample is of CPU seconds of the training thread: what the machine gave to other programs meanwhile does not count.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import cores
from hvd_gossip.transport.simulated_links import Distribution

SAMPLE = Path(__file__).with_name("jitter.json")
STEPS, WARM_UP = 400, 20


def empirical(factors: list[float]) -> Distribution:
    """Draws one of the factors, all equally likely.

    Raises:
        ValueError: there are none, or one is not positive.
    """
    if not factors or min(factors) <= 0:
        raise ValueError("an empirical distribution needs positive factors")
    return lambda stream: factors[int(stream.random() * len(factors))]


def measured_jitter() -> Distribution:
    """The stored sample's: factors of the mean step."""
    factors: list[float] = json.loads(SAMPLE.read_text())["factors"]
    return empirical(factors)


def mean_of_slowest(distribution: Distribution, size: int, draws: int = 2000) -> float:
    """Mean of the largest of `size` draws: how much longer than the mean a barrier of so many workers takes."""
    stream = random.Random("slowest")
    assert callable(distribution)
    drawn = np.array([[distribution(stream) for _ in range(size)] for _ in range(draws)])
    return float(drawn.max(axis=1).mean())


def measure_steps() -> list[float]:
    """CPU seconds of steps of a small convolutional network, on one thread."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    seconds = []
    for _ in range(WARM_UP + STEPS):
        images, labels = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
        start = time.thread_time()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        seconds.append(time.thread_time() - start)
    return seconds[WARM_UP:]


def main() -> int:
    """Measures and writes the sample."""
    load = os.getloadavg()[0]
    seconds = np.array(measure_steps())
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.scale.jitter",
        "what": "CPU seconds of a training step (convolutional network, 16 images, one thread) over their mean",
        "cores": cores(),
        "load_before": round(load, 2),
        "mean_ms": round(float(seconds.mean()) * 1e3, 3),
        "factors": [round(float(factor), 4) for factor in seconds / seconds.mean()],
    }
    SAMPLE.write_text(json.dumps(document, indent=1) + "\n")
    quantiles = np.quantile(seconds / seconds.mean(), [0.01, 0.5, 0.99, 1.0])
    print(f"mean {seconds.mean() * 1e3:.2f} ms; factors at 1, 50, 99, 100 %: {np.round(quantiles, 3)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
