"""Objects as byte arrays."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.collectives import Collectives, Request, decode_object, decode_objects, encode_object
from tests.collectives.cluster import Cluster


def test_there_and_back() -> None:
    value = {"lr": 0.1, "shape": (2, 3), "function": lambda x: x + 1}
    back = decode_object(encode_object(value))
    assert back["shape"] == (2, 3)
    assert back["function"](1) == 2
    assert encode_object(None).flags.writeable


def test_objects_of_different_lengths_through_allgather() -> None:
    cluster = Cluster(4)

    async def main(rank: int, collectives: Collectives) -> list[str]:
        result = await collectives.submit(Request("objects", "allgather", encode_object("word" * rank * 100)))
        return decode_objects(result.output, result.sizes)

    assert cluster.run(main) == [["word" * rank * 100 for rank in range(4)]] * 4


@pytest.mark.parametrize("data", [np.zeros(3), np.zeros((1, 3), np.uint8)])
def test_what_is_no_encoded_object_is_refused(data: np.ndarray) -> None:
    with pytest.raises(ValueError, match="1-D uint8"):
        decode_object(data)


def test_sizes_must_add_up() -> None:
    with pytest.raises(ValueError, match=r"5 bytes are not the sum of the sizes \[2, 2\]"):
        decode_objects(np.zeros(5, np.uint8), (2, 2))
