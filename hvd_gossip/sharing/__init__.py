"""Work sharing: the units of an epoch handed out as workers ask."""

from hvd_gossip.sharing.messages import PoolKey, PoolSpec
from hvd_gossip.sharing.pool import SharedPool, SharingStats
from hvd_gossip.sharing.reader import PoolReader
from hvd_gossip.sharing.service import WorkSharing

__all__ = ["PoolKey", "PoolReader", "PoolSpec", "SharedPool", "SharingStats", "WorkSharing"]
