"""Full Normalization for Keras 3 (Lian and Liu, AISTATS 2019); `hvd_gossip.full_normalization` has the mathematics, (1) to (4).

Gradients through estimates are made of gradients through a batch's moments m_k and v_k: the estimate's value, and the gradient

    dm = dm_k,    dv = d(v_k + (m_k - m)^2)    with m = m(k) held fixed,

because v = s - m^2 has dv = ds_k - 2 m dm_k, and the batch's raw moment s_k = v_k + m_k^2.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from hvd_gossip.basics import ProcessSet
from hvd_gossip.full_normalization import check_momentum, step_size, track, track_variance

from .submit import call_of
from .sync_batch_norm import moments_of_all


@keras.saving.register_keras_serializable(package="hvd_gossip")
class FullNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Takes the place of `keras.layers.BatchNormalization` where batches are tiny or hold few classes: normalizes by running
    estimates of the full data set's mean and variance, in training as in inference, and passes gradients through them.
    (Not in Horovod.)

    Args:
        args, kwargs: as for `keras.layers.BatchNormalization`, except `synchronized` and `renorm`. `momentum` is Keras's:
            a batch has the weight alpha = 1 - momentum, in (0, 1]; with momentum 0 this is BatchNormalization. The default
            is 0.9, not Keras's 0.99.
        track_gradients: estimate the outer gradient by running averages as well (4).
        process_set: the workers whose batches' moments are averaged in each training step, one collective forward and one
            backward, as in `SyncBatchNormalization`; None: nothing is communicated.

    Raises:
        ValueError: a momentum out of range, `synchronized` or `renorm`.
    """

    def __init__(
        self, *args: Any, track_gradients: bool = True, process_set: ProcessSet | None = None, **kwargs: Any
    ) -> None:
        if kwargs.pop("synchronized", False) or kwargs.pop("renorm", False):
            raise ValueError(
                "FullNormalization normalizes by estimates of its own: no synchronized=True, no renorm=True"
            )
        if len(args) < 2:
            kwargs.setdefault("momentum", 0.9)
        super().__init__(*args, **kwargs)
        check_momentum(1.0 - self.momentum)
        self.track_gradients = track_gradients
        self.process_set = process_set

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.batches = self.add_weight(name="batches", shape=(), initializer="zeros", trainable=False, autocast=False)
        if self.track_gradients:
            shape = (2, input_shape[self.axis])
            self.running_gradient = self.add_weight(
                name="running_gradient", shape=shape, initializer="zeros", trainable=False, autocast=False
            )

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        if mask is not None and len(mask.shape) != len(inputs.shape) - 1:
            raise ValueError(
                f"the mask needs one dimension less than the inputs {inputs.shape}, and has shape {mask.shape}"
            )
        wide = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = self._estimate(wide, mask)
        outputs = keras.ops.batch_normalization(
            wide, mean, variance, self.axis, self._cast(self.beta, wide), self._cast(self.gamma, wide), self.epsilon
        )
        return tf.cast(outputs, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Without the process set: a model that is loaded communicates nothing unless it is set anew."""
        config: dict[str, Any] = super().get_config()
        for name in ("synchronized", "renorm", "renorm_clipping", "renorm_momentum"):
            config.pop(name, None)
        return {**config, "track_gradients": self.track_gradients}

    def _estimate(self, inputs: Any, mask: Any) -> tuple[Any, Any]:
        """Takes a batch's moments into the estimates (1); their gradient is that of (3)."""
        mean, variance = self._moments_of_batch(inputs, mask)
        self.batches.assign_add(1.0)
        alpha = step_size(self._cast(self.batches, inputs), 1.0 - self.momentum, tf.maximum)
        before = self._cast(self.moving_mean, inputs), self._cast(self.moving_variance, inputs)
        merged = track_variance(before[1], variance, mean - before[0], alpha)
        taken = tf.math.is_finite(mean) & tf.math.is_finite(variance)
        new_mean = tf.stop_gradient(tf.where(taken, track(before[0], mean, alpha), before[0]))
        new_variance = tf.stop_gradient(tf.where(taken, merged, before[1]))
        self.moving_mean.assign(new_mean)
        self.moving_variance.assign(new_variance)
        through = _with_gradient_of(new_mean, mean), _with_gradient_of(new_variance, variance + (mean - new_mean) ** 2)
        return self._with_tracked_gradient(*through, alpha) if self.track_gradients else through

    def _moments_of_batch(self, inputs: Any, mask: Any) -> tuple[Any, Any]:
        if self.process_set is None or self.process_set.size() == 1:
            mean, variance = self._moments(inputs, mask)
            return mean, variance
        weights = None
        if mask is not None:
            weights = tf.broadcast_to(tf.cast(mask, inputs.dtype)[..., tf.newaxis], tf.shape(inputs))
        call = call_of("allgather", [inputs], f"full_norm.{self.name}", self.process_set)
        return moments_of_all(inputs, weights, list(self._reduction_axes), call)

    def _with_tracked_gradient(self, mean: Any, variance: Any, alpha: Any) -> tuple[Any, Any]:
        """The same two; their gradients are replaced by running averages (4), in units that the inputs' scale is not in."""

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def tracked(m: Any, v: Any) -> tuple[Any, Any]:
            r = tf.math.rsqrt(v + self.epsilon)

            def gradient(dm: Any, dv: Any) -> tuple[Any, Any]:
                sums = tf.stack([dm / r, dv / r**2])
                before = self._cast(self.running_gradient, sums)
                after = tf.where(tf.math.is_finite(sums), track(before, sums, alpha), before)
                self.running_gradient.assign(after)
                return after[0] * r, after[1] * r**2

            return (tf.identity(m), tf.identity(v)), gradient

        m, v = tracked(mean, variance)
        return m, v

    @staticmethod
    def _cast(variable: Any, like: Any) -> Any:
        return None if variable is None else tf.cast(variable, like.dtype)


def convert_full_normalization(model: Any, **options: Any) -> Any:
    """A copy of a Keras model with every `BatchNormalization` in it replaced by `FullNormalization`, weights and all.

    Made by `keras.models.clone_model`, nested models included; compile the copy. `SyncBatchNormalization` is left.

    Args:
        model: Sequential or functional, built.
        options: momentum (default: each layer's own), track_gradients, process_set.

    Raises:
        ValueError: a model that `clone_model` cannot copy, or an option out of range.
    """
    pairs: list[tuple[Any, Any]] = []

    def clone(layer: Any) -> Any:
        if type(layer) is keras.layers.BatchNormalization:
            config = {**layer.get_config(), **options}
            again = FullNormalization(**{name: config[name] for name in config if not name.startswith("renorm_")})
        else:
            again = layer.__class__.from_config(layer.get_config())
        pairs.append((layer, again))
        return again

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    for layer, again in pairs:
        if isinstance(again, FullNormalization) and not isinstance(layer, FullNormalization):
            _take_over(again, layer)
        else:
            again.set_weights(layer.get_weights())
        again.trainable = layer.trainable
    return copy


def _take_over(layer: FullNormalization, plain: Any) -> None:
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        if getattr(plain, name) is not None:
            getattr(layer, name).assign(getattr(plain, name))
    # Keras counts no batches: statistics that have moved are worth keeping, and the next batch gets its least weight.
    if bool(tf.reduce_any(tf.convert_to_tensor(plain.moving_mean) != 0)):
        layer.batches.assign(1.0 / (1.0 - layer.momentum))


def _with_gradient_of(value: Any, source: Any) -> Any:
    """`value`, to which nothing flows back, with the gradient of `source`."""
    return tf.stop_gradient(value) + (source - tf.stop_gradient(source))
