"""What all functions of the public interface have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

F = TypeVar("F", bound=Callable[..., Any])


def public(function: F) -> F:
    """Decorates a function of the API: AutoGraph leaves it as it is, so that tracing it costs no conversion."""
    plain: F = tf.autograph.experimental.do_not_convert(function)
    return plain
