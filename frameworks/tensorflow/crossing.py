"""The boundary between TensorFlow and the runtime, which works on NumPy arrays in Python.

Eagerly an operation is simply called. In a graph it becomes one `tf.numpy_function` for all tensors of the operation, which
waits on a thread of its own (see beside.py). Inside `tf.function` the operations run in the order of the program; those of
functions and conditions inside it that use variables may overlap with others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .arrays import Array, as_array, as_tensor
from .beside import cross_beside, cross_in_order
from .names import clean

Tensors = Sequence[Any]
Run = Callable[[list[Array]], Sequence[Array]]
"""Makes the arrays of the results of the arrays of the inputs, which it must neither write to nor return."""

JIT = (
    "{what} communicates, and so cannot be compiled by XLA: set jit_compile=False in tf.function ({function}), or in "
    "model.compile() with Keras, or communicate outside of the compiled function"
)


def cross(run: Run, tensors: Tensors, outputs: Sequence[tf.TensorSpec], name: str) -> list[Any]:
    """Results of an operation on tensors, as tensors.

    Args:
        run: carries the operation out; blocks.
        tensors: of numbers or bool.
        outputs: shapes, as far as they are known, and types of the results.
        name: of the operation in the graph; characters that TensorFlow does not allow are replaced.

    Raises:
        NotImplementedError: inside a function that XLA compiles. What `run` raises: eagerly as it is, by a graph as a
            tf.errors.OpError, from which `take_failure()` leads back.
    """
    if tf.executing_eagerly():
        return [as_tensor(array) for array in run([as_array(tensor) for tensor in tensors])]
    refuse_compilation(name)
    in_function = tf.compat.v1.get_default_graph().building_function
    types = [spec.dtype for spec in outputs]
    results = (cross_in_order if in_function else cross_beside)(_Keeping(run), tensors, types, clean(name))
    for result, spec in zip(results, outputs, strict=True):
        result.set_shape(spec.shape)
    return results


def cross_for_effect(run: Callable[[], object], name: str) -> Any:
    """Calls `run`: eagerly now, in a graph when the operation that is returned runs."""

    def call(_: object) -> list[Array]:
        run()
        return [np.array(True)]

    (called,) = cross(call, [], [tf.TensorSpec([], tf.bool)], name)
    return None if tf.executing_eagerly() else called.op


def take_failure() -> BaseException | None:
    """The exception that last ended an operation in a graph, once: TensorFlow hands on its text alone."""
    failure, _Keeping.failure = _Keeping.failure, None
    return failure


def refuse_compilation(what: str) -> None:
    """Raises NotImplementedError if what is being traced is a function that XLA will compile.

    TensorFlow would say at its first call that there is no kernel for "PyFunc", and not what to do. Only tracing costs this
    look at who calls.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith("polymorphic_function.py"):
            function = frame.f_locals.get("self")
            if getattr(function, "_jit_compile", None):
                name = getattr(function, "__name__", "function")
                raise NotImplementedError(JIT.format(what=what, function=name))
        frame = frame.f_back  # type: ignore[assignment]


class _Keeping:
    """A `Run` that keeps its exception for `take_failure()`.

    Attributes:
        failure: of the last operation of this process that failed in a graph.
    """

    failure: BaseException | None = None

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, arrays: Sequence[Any]) -> list[Array]:
        try:
            return list(self._run([np.asarray(array) for array in arrays]))
        except BaseException as error:
            _Keeping.failure = error
            raise
