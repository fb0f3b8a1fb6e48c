"""What is recorded of the machine, and what is not."""

from __future__ import annotations

import getpass
import json
import re
import socket

import pytest

from benchmarks.machine import cores, default_folder, describe_machine, machine_class


def test_versions_and_hardware_are_recorded_without_names_of_machines_or_people() -> None:
    machine = describe_machine()
    text = json.dumps(machine)
    for name in ("hvd_gossip", "python", "mpi", "torch", "numpy", "mpi4py", "processor", "cores", "memory_gb", "date"):
        assert name in machine
    assert machine["cores"] == cores() >= 1
    for private in (socket.gethostname(), f"/{getpass.getuser()}/"):
        assert private not in text


def test_folders_are_named_by_date_and_class_of_machine() -> None:
    assert re.fullmatch(r"[a-z]+-\w+-\d+-cores", machine_class())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-" + machine_class(), default_folder().name)
    assert default_folder().parent.name == "results"
    assert default_folder(quick=True) != default_folder()


def test_outside_of_a_repository_there_is_no_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("benchmarks.machine.ROOT", tmp_path)
    assert describe_machine()["revision"] is None
