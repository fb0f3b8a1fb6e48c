"""Command lines that end in somebody else's command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hvd_gossip.setting import did_you_mean


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, namespace: argparse.Namespace | None = None
) -> argparse.Namespace:
    """Parses with an error for unknown options that lists the valid ones.

    Args:
        namespace: takes the values; default: a new one.

    Raises:
        SystemExit: with code 2, after the message, for arguments that the parser does not take.
    """
    arguments, unknown = parser.parse_known_args(argv, namespace)
    if unknown:
        valid = sorted(option for option in parser._option_string_actions if option.startswith("--"))
        hint = did_you_mean(unknown[0].partition("=")[0], valid)
        parser.error(f"unknown option {unknown[0]}.{hint} Valid options: {', '.join(valid)}.")
    return arguments


def command_of(remainder: Sequence[str]) -> tuple[str, ...]:
    """What an argparse.REMAINDER collected, without the -- that may come before it."""
    return tuple(remainder[1:] if remainder[:1] == ["--"] else remainder)
