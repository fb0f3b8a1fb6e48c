"""Several arrays addressed as one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives.vector import Vector


@given(lengths=st.lists(st.integers(0, 8), min_size=1, max_size=6), data=st.data())
def test_ranges_are_those_of_the_concatenation(lengths: list[int], data: st.DataObject) -> None:
    stream = np.random.default_rng(0)
    arrays = [stream.integers(0, 99, length) for length in lengths]
    joined, vector = np.concatenate(arrays), Vector(arrays)
    assert vector.length == len(joined)
    start = data.draw(st.integers(0, vector.length))
    stop = data.draw(st.integers(start, vector.length))
    if start == stop:
        assert list(vector.pieces(start, stop)) == []
        return
    scratch = np.empty(vector.length, joined.dtype)
    assert vector.read(start, stop, scratch).tolist() == joined[start:stop].tolist()
    view = vector.view(start, stop)
    assert (view is not None) == (len(list(vector.pieces(start, stop))) == 1)
    assert view is None or any(np.shares_memory(view, array) for array in arrays)
    pieces = list(vector.pieces(start, stop))
    assert [piece.low for piece in pieces] == [0, *(piece.high for piece in pieces[:-1])]
    vector.write(start, stop, np.arange(stop - start))
    joined[start:stop] = np.arange(stop - start)
    assert np.concatenate(arrays).tolist() == joined.tolist()


def test_views_reach_into_arrays_of_any_shape() -> None:
    matrix, scalar = np.zeros((2, 3)), np.array(7.0)
    vector = Vector([matrix, scalar])
    view = vector.view(2, 5)
    assert view is not None
    view[...] = 1
    assert matrix.tolist() == [[0, 0, 1], [1, 1, 0]]
    assert vector.view(6, 7) == np.array([7.0])


def test_which_array_an_element_lies_in() -> None:
    vector = Vector([np.ones(2), np.ones(0), np.ones((2, 2))])
    assert vector.bounds == [0, 2, 2, 6]
    assert [vector.index_of(start) for start in range(6)] == [0, 0, 2, 2, 2, 2]
