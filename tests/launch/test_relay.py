"""The way of a command's output: complete, in lines, at once where it is a progress bar, with its end remembered."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.launch.agent import child, relay
from hvd_gossip.launch.agent.relay import LINE_LIMIT, TAIL_LINES, Relay, Stream, Tail


def tail(*pieces: bytes, lines: int = TAIL_LINES) -> list[str]:
    kept = Tail(lines)
    for piece in pieces:
        kept.feed(1, piece)
    return kept.lines()


def test_the_last_lines_are_kept() -> None:
    assert tail(*(b"%d\n" % i for i in range(30))) == [str(i) for i in range(10, 30)]
    assert tail(b"a\nb\nc\nd", lines=2) == ["c", "d"]


def test_a_line_may_come_in_pieces_and_have_no_end() -> None:
    assert tail(b"be", b"gin", b"ning\nen", b"d") == ["beginning", "end"]


def test_of_a_progress_bar_the_last_state_is_kept() -> None:
    assert tail(b"\r 10%", b"\r 20%", b"\r100%\ndone\r\n") == ["100%", "done"]
    assert tail(b"1/3\r2/3\r") == ["2/3"]


def test_both_streams_keep_their_own_lines() -> None:
    kept = Tail()
    kept.feed(1, b"out ")
    kept.feed(2, b"error\n")
    kept.feed(1, b"put\n")
    assert kept.lines() == ["error", "out put"]


def test_bytes_that_are_no_text_and_lines_without_end_are_bounded() -> None:
    assert tail(b"\xff\xfe\n") == ["\ufffd\ufffd"]
    assert all(len(line) <= LINE_LIMIT for line in tail(b"x" * 10**6, b"y" * 10**6 + b"\n" + b"z" * 10**6))


def arriving(*pieces: bytes, log: Path | None = None, timestamps: bool = False) -> bytes:
    """What arrives of the pieces that a stream is given."""
    reader, writer = os.pipe()
    stream = Stream(writer, -1, log.open("wb", buffering=0) if log else None, timestamps)  # type: ignore[arg-type]
    for piece in pieces:
        stream.send(piece)
    stream.close()
    os.close(writer)
    with os.fdopen(reader, "rb") as read:
        return read.read()


def test_output_is_copied_to_a_file(tmp_path: Path) -> None:
    assert arriving(b"one\nt", b"wo\n", b"\r 50%", log=tmp_path / "log") == b"one\ntwo\n\r 50%"
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n\r 50%"


def test_each_line_begins_with_the_time_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "NOW ")
    said = arriving(b"one\nt", b"wo\n\n", b"\r 50%", b"\r 90%\n", b"end", log=tmp_path / "log", timestamps=True)
    assert said == b"NOW one\nNOW two\nNOW \nNOW \r 50%\r 90%\nNOW end"
    assert (tmp_path / "log").read_bytes() == said


@given(st.lists(st.binary(max_size=40)))
def test_nothing_that_is_sent_is_lost_or_reordered(pieces: list[bytes]) -> None:
    reader, writer = os.pipe()
    stream = Stream(writer, -1)
    for piece in pieces:
        stream.send(piece)
    stream.flush()
    os.close(writer)
    with os.fdopen(reader, "rb") as read:
        assert read.read() == b"".join(pieces)


@pytest.fixture
def sent() -> Iterator[tuple[Stream, int]]:
    """A stream, and where to read what it passed on, without waiting."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield Stream(writer, -1), reader
    os.close(reader)
    os.close(writer)


def received(reader: int) -> bytes:
    try:
        return os.read(reader, 1 << 16)
    except BlockingIOError:
        return b""


def test_the_start_of_a_line_waits_for_its_end(sent: tuple[Stream, int]) -> None:
    stream, reader = sent
    stream.send(b"one\ntw")
    assert received(reader) == b"one\n"
    stream.send(b"o\n")
    assert received(reader) == b"two\n"
    stream.send(b"prompt: ")
    assert received(reader) == b""
    stream.flush()
    assert received(reader) == b"prompt: "


def test_a_progress_bar_does_not_wait(sent: tuple[Stream, int]) -> None:
    stream, reader = sent
    for piece in (b"\r 10%", b"\r 20%", b" slow", b"\r100%"):
        stream.send(piece)
        assert received(reader) == piece
    stream.send(b"\nnext")
    assert received(reader) == b"\n"


def test_a_reader_that_is_gone_does_not_stop_the_command() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    Stream(writer, -1).send(b"line\n")
    os.close(writer)


def relayed(terminal: bool) -> tuple[Relay, int, int]:
    """A running relay, the command's end of its one stream, and where the copy arrives."""
    source, command_end = child.open_output(terminal, (24, 80))
    reader, writer = os.pipe()
    copying = Relay([Stream(writer, source)])
    copying.start()
    return copying, command_end, reader


@pytest.mark.parametrize("terminal", [False, True])
def test_all_that_was_written_arrives_before_finish_returns(terminal: bool) -> None:
    copying, command_end, reader = relayed(terminal)
    lines = b"".join(b"line %d\n" % i for i in range(3000))
    os.write(command_end, lines[:1000])
    os.write(command_end, lines[1000:4000])
    os.close(command_end)
    copying.finish()
    os.set_blocking(reader, False)
    assert received(reader) == lines[:4000]
    assert not copying.is_alive()


def test_a_child_that_keeps_the_output_open_does_not_keep_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "DRAIN_S", 0.1)
    copying, command_end, reader = relayed(terminal=False)
    os.write(command_end, b"last words")
    copying.finish()  # with the command's end still open
    assert os.read(reader, 100) == b"last words"
    assert copying.tail.lines() == ["last words"]
    os.close(command_end)


class Late(Relay):
    """Its thread gets its turn only when the time limit has passed."""

    def join(self, timeout: float | None = None) -> None:
        self.start()
        super().join(timeout)


def test_what_lies_in_the_pipes_when_the_time_is_up_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(relay, "DRAIN_S", 0.0)
    pipes = [os.pipe(), os.pipe()]
    files = [(tmp_path / name).open("wb", buffering=0) for name in ("stdout", "stderr")]
    copying = Late([Stream(file.fileno(), source) for file, (source, _) in zip(files, pipes, strict=True)])
    lines = b"".join(b"line %d\n" % i for i in range(5000))
    for _, command_end in pipes:
        os.write(command_end, lines)  # and a child keeps them open
    copying.finish()
    assert [(tmp_path / name).read_bytes() for name in ("stdout", "stderr")] == [lines, lines]
    assert copying.tail.lines()[-1] == "line 4999"
    for end in (*pipes[0], *pipes[1]):
        os.close(end)
    for file in files:
        file.close()


def test_a_child_that_writes_on_and_on_does_not_keep_the_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Refilled(Stream):
        def receive(self) -> bytes:
            data = super().receive()
            os.write(command_end, data)
            return data

    monkeypatch.setattr(relay, "DRAIN_S", 0.0)
    source, command_end = os.pipe()
    with (tmp_path / "stdout").open("wb", buffering=0) as file:
        os.write(command_end, b"again\n" * 5000)
        Late([Refilled(file.fileno(), source)]).finish()
        assert file.tell() >= 30_000
    os.close(source)
    os.close(command_end)


def test_a_held_line_is_passed_on_after_a_moment() -> None:
    copying, command_end, reader = relayed(terminal=False)
    os.write(command_end, b"no end")
    assert os.read(reader, 100) == b"no end"  # blocks until it comes
    os.close(command_end)
    copying.finish()


def test_a_terminal_has_the_size_asked_for_and_changes_nothing() -> None:
    reader, writer = child.open_output(True, (30, 99))
    assert os.isatty(writer)
    assert os.get_terminal_size(writer) == os.terminal_size((99, 30))
    os.write(writer, b"a\nb\r\n")
    assert os.read(reader, 100) == b"a\nb\r\n"
    os.close(reader)
    os.close(writer)
