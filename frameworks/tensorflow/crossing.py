"""The boundary between TensorFlow and the runtime, which works on NumPy arrays in Python.

Eagerly an operation is simply called. In a graph it becomes one `tf.numpy_function` for all tensors of the operation:
stateful, so that every rank runs the operations of a `tf.function` in the order of the program, and that none is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .arrays import Array, as_array, as_tensor
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
    results = tf.numpy_function(_Keeping(run), list(tensors), [spec.dtype for spec in outputs], name=clean(name))
    if not isinstance(results, (list, tuple)):  # without results it is the operation
        return []
    for result, spec in zip(results, outputs, strict=True):
        result.set_shape(spec.shape)
    return list(results)


def cross_for_effect(run: Callable[[], object], name: str) -> Any:
    """Calls `run`: eagerly now, in a graph when the operation that is returned runs."""
    if tf.executing_eagerly():
        run()
        return None
    refuse_compilation(name)

    def done() -> np.bool_:
        run()
        return np.bool_(True)

    return tf.numpy_function(_Keeping(lambda _: done()), [], tf.bool, name=clean(name)).op


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
    """A `Run` as TensorFlow's graphs call it, which keeps the exception.

    Attributes:
        failure: of the last operation of this process that failed.
    """

    failure: BaseException | None = None

    def __init__(self, run: Callable[[list[Array]], Any]) -> None:
        self._run = run

    def __call__(self, *arrays: Any) -> Any:
        try:
            return self._run([np.asarray(array) for array in arrays])
        except BaseException as error:
            _Keeping.failure = error
            raise
