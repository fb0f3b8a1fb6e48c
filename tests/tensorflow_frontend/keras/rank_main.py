"""In a rank: runs the checks of all files of this folder."""

from __future__ import annotations

import importlib
import os

os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

import hvd_gossip.tensorflow as hvd

from tests.ranks import run_checks
from tests.tensorflow_frontend.keras.ranks import files


def main() -> None:
    modules = {file: importlib.import_module(f"tests.tensorflow_frontend.keras.{file}") for file in files()}
    checks = {
        f"{file}.{name}": check
        for file, module in modules.items()
        for name, check in vars(module).items()
        if name.startswith("check_") and check.__module__ == module.__name__
    }
    run_checks(hvd, checks, process_sets="dynamic")


if __name__ == "__main__":
    main()
