"""Knobs: flags, quick variants, and how they travel to the ranks."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import pytest

from benchmarks import options
from benchmarks.options import CollectivesOptions, Options, StragglerOptions, add_arguments, from_arguments, from_json
from benchmarks.run import BENCHMARKS

KINDS = [benchmark.options for benchmark in BENCHMARKS.values()]


def parse(kind: type[Any], *arguments: str) -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    add_arguments(parser, kind)
    return from_arguments(kind, parser.parse_args(arguments))


@pytest.mark.parametrize("kind", KINDS)
def test_without_flags_the_defaults_hold(kind: type[Options]) -> None:
    assert parse(kind) == kind()
    assert parse(kind, "--quick") == options.quick(kind)
    assert options.quick(kind) != kind()


@pytest.mark.parametrize("kind", KINDS)
def test_every_knob_has_a_flag_and_travels_as_json(kind: type[Options]) -> None:
    quick = options.quick(kind)
    arguments = []
    for field in dataclasses.fields(kind):
        value = getattr(quick, field.name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        arguments += ["--" + field.name.replace("_", "-"), text]
    assert parse(kind, *arguments) == quick
    assert from_json(kind, json.loads(json.dumps(dataclasses.asdict(quick)))) == quick


def test_a_flag_goes_before_the_quick_variant() -> None:
    chosen = parse(StragglerOptions, "--quick", "--slowdowns", "1,5.5", "--repetitions", "2")
    assert chosen == dataclasses.replace(options.quick(StragglerOptions), slowdowns=(1.0, 5.5), repetitions=2)


def test_help_shows_what_a_knob_is_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(CollectivesOptions, "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--bytes N,... sizes of the float32 tensor (default 1024,65536,1048576,4194304,62914560)" in text


def test_defaults_are_what_the_targets_are_stated_for() -> None:
    straggler = StragglerOptions()
    assert (straggler.ranks, straggler.step_ms, straggler.megabytes) == (16, 50.0, 1.08)
    assert straggler.slowdowns == (1.0, 2.0, 10.0, 100.0, 1_000.0, 10_000.0)
    assert options.OverheadOptions().ranks == 16
    assert set(options.MemoryOptions().algorithms) == {"adpsgd", "dpsgd", "sgp"}
    assert CollectivesOptions().ranks == (2, 4)


def test_every_size_has_its_compute() -> None:
    assert options.KerasFitOptions().steps(50.0) == 40
    assert options.KerasFitOptions().steps(60_000.0) == 3
    with pytest.raises(ValueError, match="a time for each of the 2 sizes"):
        options.KerasFitOptions(step_ms=(50.0,))
