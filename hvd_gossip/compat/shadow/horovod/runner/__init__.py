"""Horovod's launcher as a module: `run`, and `python -m horovod.runner.launch`, which is `horovodrun`."""

from hvd_gossip.launch.function import run as run
