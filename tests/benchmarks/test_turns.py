"""Ways that take turns, on one real rank."""

from __future__ import annotations

from benchmarks.ranks.turns import LEAST, measure_turns


def test_every_way_takes_its_turn_and_the_first_is_discarded() -> None:
    calls: list[str] = []
    times = measure_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.0, 100)
    assert calls == ["a", "b"] * (LEAST + 1)
    for starts, ends in times.values():
        assert len(starts) == len(ends) == LEAST
        assert all(start <= end for start, end in zip(starts, ends, strict=True))
        assert starts == sorted(starts)


def test_there_are_at_most_so_many_repetitions() -> None:
    times = measure_turns({"a": lambda: None}, 1000.0, 8)
    assert len(times["a"][0]) == 8
