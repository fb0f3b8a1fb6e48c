"""Where Keras 3 asks no optimizer: loss scaling, and compilation by XLA.

`keras.optimizers.LossScaleOptimizer` skips a step whose gradients are not finite, and `keras.Model.compile` decides on
`jit_compile`. Neither can be told from within an optimizer that ranks must agree, so both methods are replaced by ones that ask
a distributed optimizer, if there is one, and do what they did otherwise. Importing this module replaces them.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import keras

from .optimizer import distributed_of

JIT = (
    "hvd-gossip communicates in each training step, which XLA cannot compile: jit_compile is off for this model. Pass "
    "jit_compile=False to model.compile() to say so yourself"
)

CALLS_OPTIMIZER = "experimental_run_tf_function"
"""An argument of Keras 2.0 that Horovod's scripts set, so that the optimizer is called. Keras 3 calls it, and has no such one."""


def _replace(cls: type, name: str, ours: Any) -> None:
    cls = next(one for one in cls.__mro__ if name in vars(one))  # Keras compares with that class's own method
    original = vars(cls)[name]
    if not hasattr(original, "hvd_gossip"):
        method = functools.wraps(original)(lambda self, *args, **kwargs: ours(original, self, *args, **kwargs))
        method.hvd_gossip = True  # type: ignore[attr-defined]
        setattr(cls, name, method)


def _check_finite(original: Any, self: Any, grads: Any) -> Any:
    """Whether the gradients are finite: on all ranks, if they are to be averaged."""
    finite = original(self, grads)
    distributed = distributed_of(self)
    return finite if distributed is None else distributed.agree(finite)


def _skip(original: Any, self: Any) -> None:
    """A step without an update: synchronous algorithms count it all the same."""
    original(self)
    distributed = distributed_of(self)
    if distributed is not None:
        distributed.skip()


def _compile(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    if distributed_of(args[0] if args else kwargs.get("optimizer")) is not None:
        kwargs.pop(CALLS_OPTIMIZER, None)
    original(self, *args, **kwargs)
    if self.jit_compile and distributed_of(self.optimizer) is not None:
        self.jit_compile = False
        warnings.warn(JIT, stacklevel=3)


_replace(keras.optimizers.LossScaleOptimizer, "check_finite", _check_finite)
_replace(keras.optimizers.LossScaleOptimizer, "_stateful_handle_non_finite_grads", _skip)
_replace(keras.Model, "compile", _compile)
