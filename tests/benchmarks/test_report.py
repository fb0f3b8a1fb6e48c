"""Reports: targets judged by medians, figures as text and as JSON."""

from __future__ import annotations

import json

import pytest

from benchmarks.report import Report, Row, Target, show
from benchmarks.spread import Spread


def make_report(*rows: Row) -> Report:
    return Report("some", "Some title", ["what", "ratio", "wait"], rows, notes=["A note."], seconds=12.0)


@pytest.mark.parametrize(
    ("sense", "value", "met"),
    [("at most", 1.03, True), ("at most", 1.0301, False), ("at least", 1.03, True), ("at least", 1.0299, False)],
)
def test_a_target_is_met_up_to_its_limit(sense: str, value: float, met: bool) -> None:
    assert Target(1.03, sense).is_met(value) is met


def test_a_target_has_one_of_two_senses() -> None:
    with pytest.raises(ValueError, match="'below'"):
        Target(1.0, "below")


def test_rows_are_judged_by_medians_column_by_column() -> None:
    row = Row(
        {"what": "x", "ratio": Spread.of([1.0, 1.0, 9.0]), "wait": 3.0}, {"ratio": Target(1.04), "wait": Target(2.0)}
    )
    assert row.passes() == {"ratio": True, "wait": False}
    report = make_report(row, Row({"what": "y", "ratio": 7.0}))
    assert report.missed == [row]
    assert report.lines()[0][-2:] == ["ratio ≤ 1.04; wait ≤ 2", "pass; MISSED"]
    assert report.lines()[1] == ["y", "7.00", "–", "–", "–"]  # noqa: RUF001


def test_a_target_that_all_rows_share_is_named_in_the_heading() -> None:
    report = make_report(Row({"what": "x", "ratio": 0.7}, {"ratio": Target(0.8, "at least")}))
    assert report.headings() == ["what", "ratio", "wait", "target for ratio", "verdict"]
    assert report.lines() == [["x", "0.700", "–", "≥ 0.8", "MISSED"]]  # noqa: RUF001


def test_text_has_no_target() -> None:
    with pytest.raises(TypeError, match="'what' has a target but holds 'x'"):
        Row({"what": "x"}, {"what": Target(1.0)}).passes()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0234, "1.023"), (0.99999, "1.000"), (0.5, "0.500"), (2.0, "2.00"), (37.46, "37.5"),
        (999.7, "1,000"), (123456.0, "123,000"), (0.01234, "0.0123"), (-1780.0, "-1,780"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_and_ratios_near_one_four(value: float, text: str) -> None:
    assert show(value) == text


def test_measurements_show_their_quartiles() -> None:
    assert show(Spread.of([1.0, 2.0, 3.0, 4.0, 5.0])) == "3.00 (2.00…4.00)"
    assert show(Spread.of([3.0])) == "3.00"


def test_json_has_every_single_measurement() -> None:
    row = Row({"what": "x", "ratio": Spread.of([1.0, 3.0]), "wait": None}, {"ratio": Target(1.5)})
    document = json.loads(json.dumps(make_report(row).to_json()))
    assert document["rows"] == [
        {
            "cells": {
                "what": "x",
                "ratio": {"median": 2.0, "quartiles": [1.5, 2.5], "values": [1.0, 3.0]},
                "wait": None,
            },
            "targets": {"ratio": {"limit": 1.5, "sense": "at most", "passed": False}},
        }
    ]
