"""`hvd_gossip.run`: a function on every rank; results in their order, errors with the remote traceback, nothing left."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hvd_gossip
from hvd_gossip.errors import ConfigError, LaunchError, RankFailedError
from hvd_gossip.launch.hosts import Host
from tests.launch.test_launcher import idle_mpirun
from tests.launch.waiting import TEST_LIMIT, gone, marked, number_in, until

pytestmark = pytest.mark.timeout(TEST_LIMIT)
MARK = "HVD_TEST_FUNCTION"


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv(MARK, str(tmp_path))
    yield
    until(lambda: not marked(MARK, str(tmp_path)))  # what was killed may take a moment


def test_results_are_in_the_order_of_the_ranks() -> None:
    factor = 10

    def work(base: int, *, step: int) -> tuple[int, int, int]:
        from hvd_gossip import basics

        basics.init()
        return basics.rank(), basics.size(), base + step * factor * basics.rank()

    assert hvd_gossip.run(work, (5,), {"step": 2}, num_proc=3) == [(0, 3, 5), (1, 3, 25), (2, 3, 45)]


def test_one_rank_is_the_default_and_results_may_be_large() -> None:
    (result,) = hvd_gossip.run(lambda: np.arange(2_000_000.0))
    assert (result == np.arange(2_000_000.0)).all()


def test_settings_reach_the_ranks_and_output_the_files(tmp_path: Path) -> None:
    def work() -> list[str | None]:
        print("said")
        return [os.environ.get(name) for name in ("HVD_GOSSIP_ALGORITHM", "_HVD_GOSSIP_FUNCTION")]

    results = hvd_gossip.run(work, num_proc=2, output_filename=str(tmp_path / "logs"), algorithm="adpsgd")
    assert results == [["adpsgd", None]] * 2
    assert [(tmp_path / "logs" / f"rank.{rank}" / "stdout").read_text() for rank in (0, 1)] == ["said\n"] * 2


def test_modules_of_the_caller_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_module_of_a_test.py").write_text("def work():\n    return __name__\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_module_of_a_test  # type: ignore[import-not-found]

    assert hvd_gossip.run(own_module_of_a_test.work) == ["own_module_of_a_test"]


def test_what_a_rank_raises_comes_with_its_traceback_and_ends_the_others() -> None:
    def read_data(rank: int) -> None:
        if rank == 1:
            raise ValueError("no more data", 7)

    def work() -> None:
        from hvd_gossip import basics

        basics.init()
        read_data(basics.rank())
        threading.Event().wait()  # the other rank would never end

    with pytest.raises(RankFailedError) as raised:
        hvd_gossip.run(work, num_proc=2)
    assert raised.value.rank == 1
    text = str(raised.value)
    assert text.startswith("hvd_gossip.run: rank 1 failed: ValueError: ('no more data', 7)")
    assert "Traceback of rank 1:" in text
    assert "in read_data" in text
    assert "function_rank.py" not in text
    assert isinstance(raised.value.__cause__, ValueError)
    assert raised.value.__cause__.args == ("no more data", 7)


def test_an_exception_that_cannot_be_rebuilt_is_text() -> None:
    def work() -> None:
        class Odd(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__(f"{one} and {two}")

        raise Odd(1, 2)

    with pytest.raises(RankFailedError, match=r"rank 0 failed: .*Odd: 1 and 2") as raised:
        hvd_gossip.run(work)
    assert raised.value.__cause__ is None


def test_a_result_that_cannot_be_pickled_is_that_rank_s_error() -> None:
    with pytest.raises(RankFailedError, match=r"rank 0 failed: TypeError: cannot pickle '_thread.lock' object"):
        hvd_gossip.run(threading.Lock)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (3, "rank 0 on .* failed first, after .* exit code 3"),
        (0, "ended with exit code 0, but before the function returned"),
    ],
)
def test_a_rank_that_ends_itself(code: int, message: str) -> None:
    with pytest.raises(RankFailedError, match=message) as raised:
        hvd_gossip.run(os._exit, (code,))
    assert raised.value.rank == 0


def test_ranks_that_do_not_start(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"ranks 0, 1 did not start within 0.3 s"):
        hvd_gossip.run(lambda: None, num_proc=2, start_timeout=0.3, mpirun=idle_mpirun(tmp_path, "sleep 600"))


def test_ctrl_c_ends_the_ranks_and_is_a_keyboard_interrupt(tmp_path: Path) -> None:
    pids = str(tmp_path)

    def work() -> None:
        rank = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]
        Path(pids, f"pid.{rank}").write_text(f"{os.getpid()}\n")
        threading.Event().wait()

    def interrupt() -> None:
        for rank in range(2):
            number_in(tmp_path / f"pid.{rank}")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        hvd_gossip.run(work, num_proc=2)
    ranks = [number_in(tmp_path / f"pid.{rank}") for rank in range(2)]
    until(lambda: all(map(gone, ranks)))  # killed ones take a moment


def test_hosts_in_horovods_notations(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("localhost slots=2\n")

    def rank() -> str:
        return os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]

    assert hvd_gossip.run(rank, num_proc=2, hosts="localhost:2") == ["0", "1"]
    assert hvd_gossip.run(rank, num_proc=2, hostfile=str(tmp_path / "hosts"), verbose=True) == ["0", "1"]
    assert Host("localhost").local


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"hosts": "a:1", "hostfile": "x"}, ValueError, "hosts or hostfile, not both"),
        ({"use_gloo": True, "use_mpi": True}, ValueError, "use_gloo or use_mpi, not both"),
        ({"min_num_proc": 1}, NotImplementedError, r"min_num_proc=\.\.\.\): elastic runs"),
        ({"slots": 2, "max_np": 4}, NotImplementedError, r"max_np=\.\.\., slots=\.\.\.\): elastic runs"),
        ({"num_proc": 0}, ConfigError, "at least 1"),
        ({"algoritm": "sgp"}, ConfigError, "Did you mean algorithm"),
        ({"hostfile": "/none"}, ConfigError, "No such file"),
        ({"network_interface": "nic9"}, ConfigError, "no network interface 'nic9'"),
        ({"mpirun": "/none"}, LaunchError, "/none --version failed"),
    ],
)
def test_errors_come_before_anything_starts(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hvd_gossip.run(os.getpid, **arguments)


def test_np_is_the_deprecated_name(tmp_path: Path) -> None:
    with pytest.deprecated_call(match="use num_proc instead"), pytest.raises(ConfigError, match="-3 ranks"):
        hvd_gossip.run(os.getpid, np=-3)


def test_the_signature_is_horovods() -> None:
    documented = (
        "func args kwargs num_proc min_num_proc max_num_proc slots reset_limit cooldown_range hosts hostfile start_timeout "
        "ssh_port ssh_identity_file disable_cache output_filename verbose use_gloo use_mpi mpi_args network_interface "
        "executable np min_np max_np"
    )
    parameters = inspect.signature(hvd_gossip.run).parameters
    assert [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD] == documented.split()
    assert parameters["num_proc"].default == 1


def test_the_package_has_no_other_names_of_that_kind() -> None:
    with pytest.raises(AttributeError, match="module 'hvd_gossip' has no attribute 'walk'"):
        hvd_gossip.walk  # noqa: B018
