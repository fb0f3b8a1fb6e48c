"""What `make test` runs in one process, beside what."""

from __future__ import annotations

import pytest

pytest.importorskip("xdist")

from tests.schedule import LAUNCHES, TENSORFLOW, TORCH, scope


@pytest.mark.parametrize("module", ["test_joining.py", "test_docs.py", "launch/test_launcher.py"])
def test_what_launches_ranks_stands_in_line(module: str) -> None:
    assert scope(f"tests/{module}") == LAUNCHES


@pytest.mark.parametrize("module", ["conformance/test_torch.py", "torch_frontend/test_sparse.py"])
def test_so_do_pytorch_s(module: str) -> None:
    assert scope(f"tests/{module}") == TORCH


@pytest.mark.parametrize("module", ["conformance/test_tensorflow.py", "tensorflow_frontend/keras/test_checks.py"])
def test_tensorflow_s_launches_have_their_own_line(module: str) -> None:
    assert scope(f"tests/{module}") == TENSORFLOW


@pytest.mark.parametrize("module", ["algorithms/test_conformance.py", "topology/test_named.py", "sharing/test_tail.py"])
def test_a_module_in_the_simulator_is_on_its_own(module: str) -> None:
    assert scope(f"tests/{module}") == f"tests/{module}"
