"""What a case is, and the values that it works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hvd_gossip.errors import WaitTimeoutError
from tests.conformance.framework import Framework

Array = np.ndarray[Any, np.dtype[Any]]
Body = Callable[[Any], None]

TOLERANCES = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-6, "float64": 1e-14}
"""Relative error that a few additions and a division may make; other types are exact."""
FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("uint8", "int8", "int16", "int32", "int64")


@dataclass(frozen=True)
class Case:
    """A documented behaviour.

    Attributes:
        body: the function, which asserts it.
        ranks: the least number of ranks with which it can be seen.
        powers_of_two: whether it is about these numbers of ranks, about all others, or about all (None).
        averages: whether it is about averaged gradients, which there are with the algorithm `allreduce` only.
    """

    body: Body
    ranks: int = 1
    powers_of_two: bool | None = None
    averages: bool = False

    @property
    def name(self) -> str:
        """The behaviour in words."""
        return self.body.__name__

    def runs_with(self, n: int, algorithm: str = "allreduce") -> bool:
        """Whether it is about `n` ranks and an algorithm."""
        is_power = n & (n - 1) == 0
        is_averaged = algorithm == "allreduce"
        return n >= self.ranks and self.powers_of_two in (None, is_power) and (is_averaged or not self.averages)


class Cases(list[Case]):
    """Cases in the order in which they run; a decorator puts one in."""

    def add(self, ranks: int = 1, powers_of_two: bool | None = None, averages: bool = False) -> Callable[[Body], Body]:
        """Decorates a case; arguments as of `Case`."""

        def put(body: Body) -> Body:
            self.append(Case(body, ranks, powers_of_two, averages))
            return body

        return put


def numbers(rank: int, *shape: int, below: int = 5) -> Array:
    """A rank's small whole numbers: exact in every type, another order on every rank."""
    return ((np.arange(int(np.prod(shape))) + rank) % below).reshape(shape).astype(np.float64)


def everybodys(f: Framework, *shape: int, below: int = 5) -> Array:
    """All ranks' numbers, stacked."""
    return np.stack([numbers(rank, *shape, below=below) for rank in range(f.hvd.size())])


def ours(f: Framework, *shape: int, dtype: str = "float32", below: int = 5) -> Any:
    """This rank's numbers, a tensor."""
    return f.tensor(numbers(f.hvd.rank(), *shape, below=below), dtype)


def same(f: Framework, tensor: Any, expected: object, dtype: str = "float32", scale: float = 1.0) -> None:
    """Asserts type, shape and values; floats to rounding, times `scale`."""
    array, wanted = f.numpy(tensor), np.asarray(expected, dtype=np.float64)
    assert f.dtype_of(tensor) == dtype, f"{f.dtype_of(tensor)}, not {dtype}"
    assert array.shape == wanted.shape, f"shape {array.shape}, not {wanted.shape}"
    tolerance = TOLERANCES.get(dtype, 0.0) * scale
    np.testing.assert_allclose(array.astype(np.float64), wanted, rtol=tolerance, atol=tolerance)


def close(array: object, expected: object, tolerance: float = 1e-5) -> None:
    """Asserts shape and values of an array."""
    array, wanted = np.asarray(array), np.asarray(expected)
    assert array.shape == wanted.shape, f"shape {array.shape}, not {wanted.shape}"
    np.testing.assert_allclose(array, wanted, rtol=tolerance, atol=tolerance)


def parts(total: int, members: int) -> list[slice]:
    """Which rows of a reducescatter go to which member: the first (total mod members) get one more."""
    few, longer = divmod(total, members)
    ends = np.cumsum([few + (member < longer) for member in range(members)])
    return [slice(int(begin), int(end)) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


@contextmanager
def raises(*kinds: type[BaseException], about: Sequence[str] = ()) -> Iterator[None]:
    """Asserts that an exception of these kinds is raised, whose message has these words; not for want of an answer."""
    with pytest.raises(kinds) as caught:
        yield
    missing = [word for word in about if word.lower() not in str(caught.value).lower()]
    assert not missing, f"{missing} not in: {caught.value}"
    assert not isinstance(caught.value, WaitTimeoutError), f"nobody found out before the time was up: {caught.value}"
