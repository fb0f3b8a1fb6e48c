"""All benchmarks of scale, one after the other; `make bench-scale`. Each writes its own table, JSON and picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.benchmark import Benchmark
from benchmarks.scale import calibration, epochs, faults, headlines, rings

BENCHMARKS: tuple[Benchmark[Any], ...] = tuple(
    module.BENCHMARK for module in (rings, headlines, calibration, faults, epochs)
)


def main(arguments: Sequence[str]) -> int:
    """Runs all with the flags that all have (--quick, --output); returns 1 if one could not be carried out."""
    return max(benchmark.main(arguments) for benchmark in BENCHMARKS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
