"""In a rank: runs files of checks one after the other, each as if it were the script.

rank_main.py FILE...
"""

from __future__ import annotations

import os
import runpy
import sys

from tests.torch_frontend.ranks import FOLDER, PREFIX


def main(files: list[str]) -> None:
    environment = dict(os.environ)
    for file in files:
        runpy.run_path(str(FOLDER / file), {PREFIX: f"{file}: "}, run_name="__main__")
        os.environ.clear()
        os.environ.update(environment)


if __name__ == "__main__":
    main(sys.argv[1:])
