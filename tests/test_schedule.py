"""What `make test` runs in one process, beside what."""

from __future__ import annotations

import pytest

pytest.importorskip("xdist")

from tests.schedule import LAUNCHES, scope


@pytest.mark.parametrize(
    "module", ["test_joining.py", "test_docs.py", "conformance/test_torch.py", "torch_frontend/test_sparse.py"]
)
def test_what_launches_ranks_is_in_one_process(module: str) -> None:
    assert scope(f"tests/{module}") == LAUNCHES


@pytest.mark.parametrize("module", ["algorithms/test_conformance.py", "topology/test_named.py", "sharing/test_tail.py"])
def test_a_module_in_the_simulator_is_on_its_own(module: str) -> None:
    assert scope(f"tests/{module}") == f"tests/{module}"
