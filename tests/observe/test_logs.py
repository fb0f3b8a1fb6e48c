"""The logger: levels by Horovod's names, the rank on every line, one handler however often it is set up."""

import io
import logging
import re
from collections.abc import Iterator

import pytest

from hvd_gossip.errors import ConfigError
from hvd_gossip.observe.logs import LEVELS, TRACE, configure_logging, level_of, logger


@pytest.fixture(autouse=True)
def _leave_the_logger_as_it_was() -> Iterator[None]:
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def log_one_line_a_level(level: str) -> list[str]:
    stream = io.StringIO()
    configure_logging(level, rank=3, stream=stream)
    for name, number in LEVELS.items():
        logger.log(number, "a %s line", name)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("level", LEVELS)
def test_level_lets_itself_and_what_is_worse_through(level: str) -> None:
    names = list(LEVELS)
    shown = [line.split(" a ")[1].split()[0] for line in log_one_line_a_level(level)]
    assert shown == names[names.index(level) :]


def test_every_line_starts_with_the_rank_and_names_time_and_level() -> None:
    lines = log_one_line_a_level("trace")
    assert all(re.match(r"\[3\] \d\d:\d\d:\d\d\.\d{3} [A-Z]+ a ", line) for line in lines)
    assert lines[0].split()[2] == "TRACE"


def test_level_names_are_read_in_any_case() -> None:
    assert level_of(" Warning ") == logging.WARNING
    assert level_of("TRACE") == TRACE < logging.DEBUG


def test_unknown_level_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="'loud'; valid: trace, debug, info, warning, error, fatal"):
        configure_logging("loud")


def test_second_set_up_replaces_the_first_and_keeps_a_users_handler() -> None:
    first, second, users = io.StringIO(), io.StringIO(), logging.StreamHandler(io.StringIO())
    configure_logging("info", 0, first)
    logger.addHandler(users)
    configure_logging("info", 1, second)
    logging.getLogger("hvd_gossip.engine").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == users.stream.getvalue().count("once") == 1


def test_root_handlers_get_no_second_copy(capsys: pytest.CaptureFixture[str]) -> None:
    root = io.StringIO()
    handler = logging.StreamHandler(root)
    logging.getLogger().addHandler(handler)
    try:
        configure_logging("info", 2)
        logger.info("to stderr only")
    finally:
        logging.getLogger().removeHandler(handler)
    assert root.getvalue() == ""
    assert capsys.readouterr().err.startswith("[2] ")
