"""Horovod's elastic states and loop, what is common to all frameworks."""

from hvd_gossip.elastic import ObjectState as ObjectState
from hvd_gossip.elastic import State as State
from hvd_gossip.elastic import notification_manager as notification_manager
from hvd_gossip.elastic import run_fn as run_fn
