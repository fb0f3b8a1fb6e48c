"""Communication compression: arrays to fewer bytes and back, each method with its paper and its bound."""

from hvd_gossip.compressors.base import Compressor
from hvd_gossip.compressors.registry import COMPRESSORS, make_compressor

__all__ = ["COMPRESSORS", "Compressor", "make_compressor"]
