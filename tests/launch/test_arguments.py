"""Command lines that end in somebody else's command."""

from __future__ import annotations

import argparse

import pytest

from hvd_gossip.launch.arguments import command_of, parse


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="run", allow_abbrev=False)
    made.add_argument("--seed", type=int)
    made.add_argument("--report", action="store_true")
    made.add_argument("command", nargs=argparse.REMAINDER)
    return made


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (
            ["--seed", "1", "python", "train.py", "--seed", "2", "--unknown"],
            ("python", "train.py", "--seed", "2", "--unknown"),
        ),
        (["--seed", "1", "--", "--odd-program", "-x"], ("--odd-program", "-x")),
        (["--report", "train.py", "--", "x"], ("train.py", "--", "x")),
        (["--seed", "1"], ()),
    ],
)
def test_the_command_begins_with_the_first_word_that_is_no_option(argv: list[str], command: tuple[str, ...]) -> None:
    arguments = parse(parser(), argv)
    assert command_of(arguments.command) == command
    assert arguments.seed in (1, None)


def test_an_unknown_option_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse(parser(), ["--sede=3", "train.py"])
    assert raised.value.code == 2
    assert (
        "unknown option --sede=3. Did you mean --seed? Valid options: --help, --report, --seed."
        in capsys.readouterr().err
    )
