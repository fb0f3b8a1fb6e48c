"""The background writer: whole records in order, from several threads, through close, exit, fork and failing disks."""

import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hvd_gossip.observe.background import BackgroundWriter


def open_writer(path: Path) -> BackgroundWriter[int]:
    return BackgroundWriter(path, lambda number: f"{number}\n", head="head\n", tail=lambda: "tail\n")


def test_writes_head_records_in_order_and_tail(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "file"
    writer = open_writer(path)
    for number in range(1000):
        writer.append(number)
    writer.close()
    assert path.read_text() == "head\n" + "".join(f"{number}\n" for number in range(1000)) + "tail\n"


def test_overwrites_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old\n" * 100)
    open_writer(path).close()
    assert path.read_text() == "head\ntail\n"


def test_records_reach_the_file_without_close(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "file")
    writer.append(7)
    while "7\n" not in writer.path.read_text():  # bounded by the test's time-out
        threading.Event().wait(0.01)
    assert writer.path.read_text() == "head\n7\n"
    writer.close()


def test_close_twice_and_append_after_close_do_nothing(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "file")
    writer.close()
    writer.append(1)
    writer.close()
    assert writer.path.read_text() == "head\ntail\n"


def test_loses_nothing_of_several_threads(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "file")

    def append(first: int) -> None:
        for number in range(first, first + 2000):
            writer.append(number)

    threads = [threading.Thread(target=append, args=(2000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    lines = writer.path.read_text().splitlines()[1:-1]
    assert sorted(map(int, lines)) == list(range(8000))
    one_thread = [int(line) for line in lines if int(line) < 2000]
    assert one_thread == list(range(2000))


def test_interpreter_exit_completes_the_file(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from hvd_gossip.observe.background import BackgroundWriter as W\n"
        "W(pathlib.Path(sys.argv[1]), str, tail=lambda: 'tail').append('last ')"
    )
    path = tmp_path / "file"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=150)
    assert path.read_text() == "last tail"


def test_killed_process_leaves_whole_records(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from hvd_gossip.observe.background import BackgroundWriter as W\n"
        "writer = W(pathlib.Path(sys.argv[1]), lambda n: f'<{n}>')\n"
        "for n in range(100_000): writer.append(n)\n"
        "while '<99999>' not in writer.path.read_text(): pass\n"
        "writer.append(1); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "file"
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=150).returncode == -9
    assert path.read_text().startswith("".join(f"<{number}>" for number in range(100_000)))
    assert path.read_text().endswith(">")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_leaves_the_file_to_its_parent(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "file")
    child = multiprocessing.get_context("fork").Process(target=writer.close)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    writer.append(5)
    writer.close()
    assert writer.path.read_text() == "head\n5\ntail\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
def test_full_disk_is_reported_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "hvd_gossip"):
        writer = open_writer(Path("/dev/full"))
        writer.append(1)
        writer.close()
    assert [record.message for record in caplog.records] == [
        "cannot write /dev/full ([Errno 28] No space left on device): nothing more is recorded there"
    ]


def test_record_that_cannot_be_formatted_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(record: int) -> str:
        raise TypeError(f"no text for {record}")

    writer = BackgroundWriter(tmp_path / "file", refuse)
    writer.append(3)
    writer.close()
    assert "no text for 3" in caplog.text


def test_file_that_cannot_be_made_raises_at_once(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_writer(tmp_path)
