"""`python -m horovod.runner.launch` is `horovodrun`."""

import sys

from hvd_gossip.launch.cli import horovodrun as run_commandline

if __name__ == "__main__":
    sys.exit(run_commandline())
