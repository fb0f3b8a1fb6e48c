"""In every rank: runs examples, each under one algorithm, one after the other: importing TensorFlow takes seconds.

    tensorflow_main.py JSON

JSON: a list of runs, each the name of an example, an algorithm, and the arguments.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from tests.mpi import RANK_VARIABLES, report


def main() -> None:
    passed: list[str] = []
    is_first = "0" in {os.environ.get(name) for name in RANK_VARIABLES}
    for example, algorithm, *arguments in json.loads(sys.argv[1]):
        os.environ["HVD_GOSSIP_ALGORITHM"] = algorithm
        sys.argv = [example, *arguments]
        if is_first:
            print(f"\n== {example} {algorithm} {' '.join(arguments)}", flush=True)
        try:
            importlib.import_module(example).main()
        except BaseException:
            passed.append(traceback.format_exc())
            report(passed)
            raise
        passed.append("passed")
        report(passed)


if __name__ == "__main__":
    main()
