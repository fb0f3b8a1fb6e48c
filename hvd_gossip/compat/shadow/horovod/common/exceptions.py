"""Horovod's exceptions."""

from hvd_gossip.errors import HorovodInternalError as HorovodInternalError
from hvd_gossip.errors import HostsUpdatedInterrupt as HostsUpdatedInterrupt
