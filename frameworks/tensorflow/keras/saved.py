"""`load_model`: a model with its optimizer, distributed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from ..compression import Compression, Compressor
from .optimizer import DistributedOptimizer, distributed_of


def load_model(
    filepath: Any,
    custom_optimizers: Iterable[type] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    compression: type[Compressor] = Compression.none,
    legacy_opts: bool = False,
) -> Any:
    """Loads a model that Keras saved, whose optimizer, with its state, is distributed then (Horovod's function).

    An optimizer that was distributed when it was saved comes back as it was, also from `keras.saving.load_model`; another
    one is wrapped.

    Args:
        filepath: of a `.keras` file, or an HDF5 file.
        custom_optimizers: classes of optimizers that are not Keras's.
        custom_objects: names and whatever else Keras does not know.
        compression: for an optimizer that is wrapped here.
        legacy_opts: as in Horovod; Keras 3 has no legacy optimizers.

    Raises:
        ValueError: the model was saved without an optimizer, or `legacy_opts`. NotInitializedError: before `init()`.
    """
    if legacy_opts:
        raise ValueError("legacy_opts: Keras 3 has no legacy optimizers")
    known = {cls.__name__: cls for cls in custom_optimizers or ()}
    model = keras.saving.load_model(filepath, custom_objects={**known, **(custom_objects or {})})
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(f"the model of {filepath} was saved without an optimizer, so that there is none to distribute")
    if distributed_of(optimizer) is None:
        _replace_optimizer(model, DistributedOptimizer(optimizer, compression=compression))
    return model


def _replace_optimizer(model: Any, optimizer: Any) -> None:
    """Compiles the model anew, as it was but for the optimizer."""
    config = keras.saving.deserialize_keras_object(model.get_compile_config())
    state = [variable.numpy() for variable in optimizer.variables]
    model.compile(**{**config, "optimizer": optimizer})
    optimizer.build(model.trainable_variables)
    for variable, value in zip(optimizer.variables, state, strict=True):
        variable.assign(value)
