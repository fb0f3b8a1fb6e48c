"""Accumulated Adam for Keras 3: the same steps as `hvd_gossip.torch`'s, whose module has the equations.

Wang, Zhang, Wu, Johansson: "From Promise to Practice: Realizing High-performance Decentralized Training", ICLR 2025 (arXiv
2410.11998). With s = accum_iter, T = ceil(t / s):

    a <- a + g / s,     m~ = beta1 m + (1 - beta1) g,     v~ = beta2 v + (1 - beta2) g^2
    x <- x - lr [ m~ / (1 - beta1^T) ] / [ sqrt(v~ / (1 - beta2^T)) + epsilon ]
    and where s divides t:     m <- beta1 m + (1 - beta1) a,     v <- beta2 v + (1 - beta2) a^2,     a <- 0.

`epsilon` is added to the corrected root, as in the paper and in PyTorch; keras.optimizers.Adam adds it before the correction.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="hvd_gossip")
class AccumAdam(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Adam whose moments are those of gradients averaged over `accum_iter` steps.

    Args:
        learning_rate: a number or a schedule.
        beta_1, beta_2: of the moments, from one period to the next.
        epsilon: added to the denominator.
        accum_iter: s, steps of a period.
        name: of the optimizer.
        options: of keras.optimizers.Optimizer: weight_decay (decoupled, as everywhere in Keras), clipnorm, use_ema...

    Raises:
        ValueError: a value has no meaning.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        accum_iter: int = 4,
        name: str = "accum_adam",
        **options: Any,
    ) -> None:
        if not (0.0 <= beta_1 < 1.0 and 0.0 <= beta_2 < 1.0):
            raise ValueError(f"beta_1={beta_1}, beta_2={beta_2}: expected 0 <= beta < 1, both")
        if accum_iter < 1 or accum_iter != int(accum_iter):
            raise ValueError(f"accum_iter={accum_iter}: expected a whole number of steps, at least 1")
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.beta_1, self.beta_2, self.epsilon, self.accum_iter = beta_1, beta_2, epsilon, int(accum_iter)

    def build(self, variables: Any) -> None:
        """Makes the moments and the accumulated gradients of the variables."""
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities, self._accumulated = self.add_optimizer_variables(
            variables, ["momentum", "velocity", "accumulated"]
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step."""
        rate, gradient = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        first, second, mean = self._momentums[index], self._velocities[index], self._accumulated[index]
        self.assign_sub(variable, rate * self._direction(first, second, gradient))
        self._take_up(first, second, mean, mean + gradient / self.accum_iter)

    def _direction(self, first: Any, second: Any, gradient: Any) -> Any:
        period = ops.cast(self.iterations // self.accum_iter + 1, gradient.dtype)
        correction_1 = 1 - ops.power(ops.convert_to_tensor(self.beta_1, gradient.dtype), period)
        correction_2 = 1 - ops.power(ops.convert_to_tensor(self.beta_2, gradient.dtype), period)
        moment_1 = (self.beta_1 * first + (1 - self.beta_1) * gradient) / correction_1
        moment_2 = (self.beta_2 * second + (1 - self.beta_2) * ops.square(gradient)) / correction_2
        return moment_1 / (ops.sqrt(moment_2) + self.epsilon)

    def _take_up(self, first: Any, second: Any, mean: Any, accumulated: Any) -> None:
        """The moments take up the mean gradient of a period that is complete."""
        complete = ops.equal((self.iterations + 1) % self.accum_iter, 0)
        moment_1 = self.beta_1 * first + (1 - self.beta_1) * accumulated
        moment_2 = self.beta_2 * second + (1 - self.beta_2) * ops.square(accumulated)
        self.assign(first, ops.where(complete, moment_1, first))
        self.assign(second, ops.where(complete, moment_2, second))
        self.assign(mean, ops.where(complete, ops.zeros_like(accumulated), accumulated))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes an equal optimizer of."""
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon, "accum_iter": self.accum_iter}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="hvd_gossip")
class AccumAdamW(AccumAdam):
    """`AccumAdam` with weight decay (Loshchilov and Hutter, ICLR 2019): x <- (1 - lr weight_decay) x first.

    Args: as `AccumAdam`; weight_decay is 0.004, as in keras.optimizers.AdamW.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        accum_iter: int = 4,
        name: str = "accum_adamw",
        weight_decay: float = 0.004,
        **options: Any,
    ) -> None:
        options["weight_decay"] = weight_decay
        super().__init__(learning_rate, beta_1, beta_2, epsilon, accum_iter, name, **options)
