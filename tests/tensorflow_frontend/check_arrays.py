"""Checks of tensors as arrays and back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hvd_gossip.tensorflow.arrays import WORTH_SHARING, aligned_like, as_array, as_tensor, check_type, is_aligned

from tests.tensorflow_frontend.tensors import FLOATS, INTEGERS, same

LARGE = 2 * WORTH_SHARING


def address(array: np.ndarray) -> int:
    """Where an array lies."""
    return int(array.ctypes.data)


def check_large_tensors_are_looked_at_where_they_lie() -> None:
    tensor = tf.random.uniform([LARGE])
    first, second = as_array(tensor), as_array(tensor)
    assert address(first) == address(second)
    assert not first.flags.writeable
    same(first, tensor)


def check_arrays_know_every_type() -> None:
    for dtype in (*FLOATS, *INTEGERS, tf.bool, tf.complex64):
        for size in (0, 3, LARGE):
            tensor = tf.cast(tf.range(size) % 2, dtype)
            array = as_array(tensor)
            assert array.dtype == dtype.as_numpy_dtype
            back = as_tensor(np.array(array))
            assert back.dtype == dtype
            assert tf.reduce_all(back == tensor)
    assert as_array(tf.constant(3.0)).shape == ()


def check_what_lies_aligned_is_taken_over_and_nothing_else() -> None:
    like = np.empty(LARGE, np.float32)
    aligned = aligned_like(like)
    aligned[:] = 1
    tensor = as_tensor(aligned)
    assert address(as_array(tensor)) == address(aligned)
    odd = np.ones(LARGE + 16, np.float32)
    odd = odd[1:] if is_aligned(odd) else odd
    assert not is_aligned(odd)
    variable = tf.Variable(as_tensor(odd))
    variable.assign_add(tf.ones_like(variable))  # would end the process, if it worked on memory that is not aligned
    same(odd, np.ones(len(odd)))
    fixed = aligned_like(like)
    fixed[:] = 1
    fixed.flags.writeable = False
    assert address(as_array(as_tensor(fixed))) != address(fixed)


def check_a_variable_may_change_what_it_took_over_and_no_other_tensor_does() -> None:
    aligned = aligned_like(np.empty(LARGE, np.float32))
    aligned[:] = 1
    tensor = as_tensor(aligned)
    variable = tf.Variable(tensor)
    variable.assign_add(tf.ones_like(variable))
    same(tensor, np.ones(LARGE))
    held = as_array(tf.convert_to_tensor(variable))
    variable.assign_add(tf.ones_like(variable))
    same(held, np.full(LARGE, 2))
    same(variable, np.full(LARGE, 3))


def check_aligned_arrays_have_the_type_and_shape() -> None:
    for dtype in (np.float64, np.dtype(ml_dtypes.bfloat16), np.bool_):
        for shape in ((), (0, 2), (3, 5)):
            array = aligned_like(np.zeros(shape, dtype))
            assert array.shape == shape
            assert array.dtype == dtype
            assert is_aligned(array)


def check_numbers_alone_can_be_communicated() -> None:
    check_type(tf.constant(True))
    with pytest.raises(ValueError, match="string are not supported"):
        check_type(tf.constant("a"))
