"""Horovod's exceptions."""

from hvd_gossip.errors import HorovodInternalError as HorovodInternalError
