"""The report line says everything that its arguments say, once, on rank 0."""

import doctest
import io

import pytest

from hvd_gossip.observe import report
from hvd_gossip.observe.report import DataPath, print_report, report_line


def line(topology: str | None = None, gap: float | None = None, data_path: DataPath = "CPU", wire: str = "parameter",
         ranks: int = 16, hosts: int = 4) -> str:  # fmt: skip
    return report_line(
        algorithm="sgp", topology=topology, spectral_gap=gap, ranks=ranks, hosts=hosts, transport="MPICH 4.3.1",
        thread_level="serialized", data_path=data_path, wire_dtype=wire,
    )  # fmt: skip


def test_example_of_the_docstring() -> None:
    assert doctest.testmod(report).failed == 0
    assert doctest.testmod(report).attempted == 1


def test_full_line() -> None:
    assert line("one-peer-exponential", 0.51234, "staged", "bfloat16") == (
        "hvd-gossip: sgp over one-peer-exponential (spectral gap 0.512) | 16 ranks, 4 hosts | MPICH 4.3.1, thread level "
        "serialized | GPU, staged through pinned host memory | wire dtype bfloat16"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "hvd-gossip: sgp | "),
        ({"topology": "ring"}, "sgp over ring | "),
        ({"topology": "ring", "gap": 0.0}, "ring (spectral gap 0) | "),
        ({"topology": "ring", "gap": 1e-5}, "(spectral gap 1e-05)"),
        ({"ranks": 1, "hosts": 1}, "| 1 rank, 1 host |"),
        ({"data_path": "CUDA-aware"}, "| GPU, CUDA-aware MPI |"),
        ({"data_path": "CPU"}, "| CPU |"),
        ({"wire": "parameter"}, "| wire dtype as parameters"),
    ],
)
def test_parts(arguments: dict[str, object], expected: str) -> None:
    text = line(**arguments)  # type: ignore[arg-type]
    assert expected in text
    assert "\n" not in text


@pytest.mark.parametrize(("rank", "enabled", "printed"), [(0, True, "a line\n"), (1, True, ""), (0, False, "")])
def test_rank_0_prints_unless_switched_off(rank: int, enabled: bool, printed: str) -> None:
    stream = io.StringIO()
    print_report("a line", rank, enabled, stream)
    assert stream.getvalue() == printed


def test_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_report("a line", 0)
    assert capsys.readouterr() == ("", "a line\n")
