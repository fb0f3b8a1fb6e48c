"""What algorithms and layers learn, against what theory and papers say: `make bench-convergence` (docs/benchmarks.md).

    normalization         real ranks: Full Normalization beside other normalization layers
    speedup, skew, staleness   simulated and seeded, by hvd_gossip.simulate: the algorithms of real training

Each is a module of its own, `python -m benchmarks.convergence.NAME`. None is part of `make bench`.
"""
