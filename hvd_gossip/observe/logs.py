"""The package's logger: `logging.getLogger("hvd_gossip")`, one handler to stderr, every line with its rank.

Levels are Horovod's (`HOROVOD_LOG_LEVEL`): trace, debug, info, warning, error, fatal; default warning.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from hvd_gossip.errors import ConfigError

TRACE = 5
"""Below DEBUG: every exchange. `logger.log(TRACE, ...)`."""

LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
"""What HOROVOD_LOG_LEVEL may say, in any case, and the level of `logging` that it means."""

logger = logging.getLogger("hvd_gossip")

logging.addLevelName(TRACE, "TRACE")


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # no subscript before Python 3.11
    """A class of its own, so that a second `configure_logging` finds and replaces it and leaves a user's handlers."""


def level_of(name: str) -> int:
    """The level that a name means.

    Raises:
        ConfigError: no such level; the message lists the valid ones.
    """
    try:
        return LEVELS[name.strip().lower()]
    except KeyError:
        raise ConfigError(f"unknown log level {name!r}; valid: {', '.join(LEVELS)}") from None


def configure_logging(level: str = "warning", rank: int = 0, stream: TextIO | None = None) -> logging.Logger:
    """Sets the package's logger up; a later call replaces what an earlier one set.

    The logger does not propagate, so that a script that configures the root logger gets no line twice; whoever wants
    the lines elsewhere adds a handler to `logging.getLogger("hvd_gossip")`.

    Args:
        level: a name in `LEVELS`, in any case.
        rank: put in front of every line as `[rank]`.
        stream: where to; default the `sys.stderr` of now.

    Raises:
        ConfigError: unknown level.
    """
    number = level_of(level)
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter(f"[{rank}] %(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%H:%M:%S"))
    for old in [old for old in logger.handlers if isinstance(old, _Handler)]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(number)
    logger.propagate = False
    return logger
