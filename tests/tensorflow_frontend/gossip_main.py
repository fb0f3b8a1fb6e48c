"""In a rank: runs the checks of `gossip_checks.py` under each of the algorithms that are the arguments."""

from __future__ import annotations

import sys

import hvd_gossip.tensorflow as hvd

from tests.ranks import run_checks
from tests.tensorflow_frontend import gossip_checks


def main(*algorithms: str) -> None:
    for algorithm in algorithms:
        checks = {
            f"{algorithm}: {name}": check for name, check in vars(gossip_checks).items() if name.startswith("check_")
        }
        run_checks(hvd, checks, algorithm=algorithm, mixing_order="sequential" if algorithm == "dpsgd" else "overlap")


if __name__ == "__main__":
    main(*sys.argv[1:])
