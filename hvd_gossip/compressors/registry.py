"""All compressors by name. Adding one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hvd_gossip.compressors.base import Compressor
from hvd_gossip.compressors.identity import Identity
from hvd_gossip.compressors.qsgd import Qsgd4, Qsgd8
from hvd_gossip.compressors.sign import Sign
from hvd_gossip.compressors.sparse import RandomK, TopK
from hvd_gossip.errors import ConfigError
from hvd_gossip.setting import did_you_mean

COMPRESSORS: Mapping[str, Callable[[float], Compressor]] = {
    Identity.name: lambda ratio: Identity(),
    TopK.name: TopK,
    RandomK.name: RandomK,
    Qsgd8.name: lambda ratio: Qsgd8(),
    Qsgd4.name: lambda ratio: Qsgd4(),
    Sign.name: lambda ratio: Sign(),
}
"""Name -> how it is made, given the share of the elements that a sparsifier keeps."""


def make_compressor(name: str, ratio: float = 0.01) -> Compressor:
    """The compressor of a name.

    Args:
        name: one of `COMPRESSORS`.
        ratio: k / n of top-k and random-k, in (0, 1]; no other compressor looks at it.

    Raises:
        ConfigError: there is none of that name (the message lists those that exist), or the ratio is out of range.
    """
    if name not in COMPRESSORS:
        raise ConfigError(
            f"unknown compressor {name!r}.{did_you_mean(name, COMPRESSORS)} Valid: {', '.join(COMPRESSORS)}"
        )
    return COMPRESSORS[name](ratio)
