"""Variables of TensorFlow and of Keras 3, which has a class of its own around TensorFlow's."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def bare(variable: Any) -> Any:
    """The tf.Variable of a keras.Variable; anything else as it is."""
    value = getattr(variable, "value", None)
    return value if isinstance(value, tf.Variable) else variable


def label_of(variable: Any) -> str:
    """What a variable is called: Keras's path, or TensorFlow's name; "" for an eager tensor."""
    try:
        return str(getattr(variable, "path", None) or variable.name)
    except AttributeError:  # an eager tensor has the property, but no name
        return ""
