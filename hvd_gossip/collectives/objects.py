"""Python objects as byte arrays, for broadcast_object and allgather_object."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np


def encode_object(value: Any) -> np.ndarray:
    """An object as a writeable 1-D uint8 array: first what broadcast and allgather need the length of, then they.

    Raises:
        TypeError, pickle.PicklingError: the object cannot be pickled.
    """
    return np.frombuffer(bytearray(cloudpickle.dumps(value)), np.uint8)


def decode_object(data: np.ndarray) -> Any:
    """The object that `encode_object` made an array of. Only for data of one's own ranks: unpickling runs code.

    Raises:
        ValueError: the array is not 1-D and uint8.
    """
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(f"an encoded object is a 1-D uint8 array, not {data.dtype} of shape {data.shape}")
    return cloudpickle.loads(data.tobytes())


def decode_objects(data: np.ndarray, sizes: Sequence[int]) -> list[Any]:
    """The objects of an allgather of `encode_object`s, in the order of the ranks.

    Args:
        sizes: Result.sizes.

    Raises:
        ValueError: the sizes do not add up to the array's length.
    """
    if sum(sizes) != len(data):
        raise ValueError(f"{len(data)} bytes are not the sum of the sizes {list(sizes)}")
    return [decode_object(data[start:stop]) for start, stop in pairwise((0, *accumulate(sizes)))]
