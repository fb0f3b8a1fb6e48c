"""`DistributedOptimizer` for Keras 3: an optimizer around another one, whose step keeps the replicas together.

Keras 3 calls `optimizer.apply()`: with algorithm `allreduce` the gradients are averaged before the wrapped optimizer's
`apply()`, with a gossip algorithm the variables are mixed after it. Either way all of a step's tensors cross the boundary of
the graph in one operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.collectives import Average
from hvd_gossip.gradient_options import choose_groups
from hvd_gossip.runtime import Runtime

from ..aggregation import GradientAggregation
from ..api import public
from ..averaging import Groups
from ..compression import Compression, Compressor
from ..local import LocalVariables, variables_of
from .options import Options, options_of
from .strategy import Strategy, make_strategy

LEGACY = (
    "this is an optimizer of Keras 2 (TF_USE_LEGACY_KERAS), which hvd-gossip does not distribute: unset "
    "TF_USE_LEGACY_KERAS and use Keras 3, or write a training loop with hvd.DistributedGradientTape"
)


@keras.saving.register_keras_serializable("hvd_gossip", "DistributedOptimizer")
class DistributedKerasOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """An optimizer around another one; see `DistributedOptimizer`, which makes it. What it has not the other one has.

    Args:
        inner_optimizer: makes the updates; its variables are this optimizer's.
        options: how to communicate.
        name: what the names of operations begin with; default: "Distributed" and the inner optimizer's class.

    Attributes:
        inner_optimizer: the optimizer that is wrapped.
    """

    def __init__(self, inner_optimizer: Any, options: Options | None = None, name: str | None = None) -> None:
        super().__init__(learning_rate=0.0, name=name or f"Distributed{type(inner_optimizer).__name__}")
        self._hvd_options = options = options or Options()
        self._hvd_local = LocalVariables(options.process_set, options.scale_local_gradients)
        passes, average = options.backward_passes_per_step, options.average_aggregated_gradients
        self._hvd_aggregation = GradientAggregation(passes, average, options.sparse_as_dense) if passes != 1 else None
        self._hvd_strategy: Strategy | None = None
        self._hvd_runtime: Runtime | None = None
        self._hvd_state: dict[str, Any] = {}
        self.inner_optimizer = inner_optimizer

    def register_local_var(self, var: Any) -> None:
        """This variable stays local: its gradients are not reduced, only scaled; with gossip it is not mixed.

        Raises:
            RuntimeError: training has begun.
        """
        if self._hvd_strategy is not None:
            raise RuntimeError("register_local_var() comes before the first step")
        self._hvd_local.add(var)

    def gossip_state_dict(self) -> dict[str, Any]:
        """What a checkpoint of this rank needs beside the model and the optimizer, a push-sum weight say; may be empty."""
        mixing = None if self._hvd_strategy is None else self._hvd_strategy.mixing
        return dict(self._hvd_state) if mixing is None else mixing.state_dict()

    def load_gossip_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `gossip_state_dict()` gave."""
        self._hvd_state = dict(state)
        if self._hvd_strategy is not None and self._hvd_strategy.mixing is not None:
            self._hvd_strategy.mixing.load_state_dict(state)

    def build(self, variables: Sequence[Any]) -> None:
        """The wrapped optimizer's."""
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        super().build(variables)

    @public
    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """The wrapped optimizer's, of the averaged gradients, or followed by an exchange of variables.

        Args:
            grads: one a variable: tensors, tf.IndexedSlices or None.
            trainable_variables: default: those that the optimizer was built for.

        Raises:
            NotImplementedError: inside a function that XLA compiles. Else see `DistributedOptimizer`.
        """
        gradients = list(grads)
        if not gradients:
            return
        if not self.built:
            self._hvd_build(trainable_variables)
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        strategy = self._hvd()
        if self._hvd_aggregation is None:
            reduced = strategy.reduce(gradients, variables)
            strategy.step(lambda: self.inner_optimizer.apply(reduced, variables))
            return
        given = [variable for gradient, variable in zip(gradients, variables, strict=True) if gradient is not None]
        sums = self._hvd_aggregation.add(gradients, lambda totals: strategy.reduce(totals, given))
        self._hvd_aggregation.apply(
            lambda: strategy.step(lambda: self.inner_optimizer.apply(sums, variables)), self._hvd_count
        )

    def apply_gradients(self, grads_and_vars: Any) -> Any:
        """`apply` of pairs; returns how many steps were made."""
        super().apply_gradients(grads_and_vars)
        return self.iterations

    def skip(self) -> None:
        """In place of `apply` in a step whose gradients were not finite: the workers go on exchanging their variables."""
        if self.built and self._hvd_aggregation is None:
            self._hvd().step(lambda: None)

    def agree(self, finite: Any) -> Any:
        """Whether this rank's gradients are finite, or if they are to be averaged everybody's; a scalar tensor."""
        return self._hvd().agree(finite)

    def stateless_apply(self, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
        """Not supported: what is exchanged is state."""
        raise NotImplementedError("a distributed optimizer has no stateless_apply(): use apply()")

    @property
    def variables(self) -> list[Any]:
        """The wrapped optimizer's."""
        return list(self.inner_optimizer.variables)

    @property
    def iterations(self) -> Any:
        """The wrapped optimizer's."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """The wrapped optimizer's."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def loss_scale_factor(self) -> float | None:
        """The wrapped optimizer's."""
        factor: float | None = self.inner_optimizer.loss_scale_factor
        return factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: float | None) -> None:
        if "inner_optimizer" in vars(self):  # Keras sets its own default first
            self.inner_optimizer.loss_scale_factor = factor

    def scale_loss(self, loss: Any) -> Any:
        """The wrapped optimizer's."""
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """The wrapped optimizer's."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """The wrapped optimizer's."""
        self.inner_optimizer.set_weights(weights)

    def save_own_variables(self, store: Any) -> None:
        """Nothing: the wrapped optimizer is saved below this one."""

    def load_own_variables(self, store: Any) -> None:
        """See `save_own_variables`."""

    def get_config(self) -> dict[str, Any]:
        """Name, wrapped optimizer and options.

        Raises:
            ValueError: a compressor that is none of `Compression`'s.
        """
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {"name": self.name, "inner_optimizer": inner, "options": self._hvd_options.config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Any:
        """The optimizer of `get_config()`'s value.

        Raises:
            ValueError: its process set is not registered.
        """
        inner = keras.saving.deserialize_keras_object(config["inner_optimizer"], custom_objects=custom_objects)
        return cls(inner, options_of(config["options"]), config["name"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "inner_optimizer" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.inner_optimizer, name)

    def _hvd_build(self, variables: Sequence[Any] | None) -> None:
        if variables is None:
            raise ValueError(
                "the optimizer must be built, by `optimizer.build(trainable_variables)`, or given variables"
            )
        with tf.init_scope():
            self.build(list(variables))

    def _hvd(self) -> Strategy:
        """The strategy; the first step makes it, and the first that is traced after `shutdown()` and `init()` makes a new one."""
        now = runtime.current()
        if self._hvd_strategy is None or self._hvd_runtime is not now:
            strategy = make_strategy(self.name, self._hvd_options, self._hvd_local, self._trainable_variables)
            if strategy.mixing is not None:
                strategy.mixing.load_state_dict(self.gossip_state_dict())
            self._hvd_strategy, self._hvd_runtime = strategy, now
        return self._hvd_strategy

    def _hvd_count(self) -> None:
        """A pass after which nothing is applied counts as an iteration (Horovod's)."""
        self.inner_optimizer._iterations.assign_add(1)


def DistributedOptimizer(
    optimizer: Any,
    name: str | None = None,
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    sparse_as_dense: bool = False,
    gradient_predivide_factor: float = 1.0,
    op: int = Average,
    backward_passes_per_step: int = 1,
    average_aggregated_gradients: bool = False,
    num_groups: int = 0,
    groups: Groups = None,
    process_set: ProcessSet = global_process_set,
    scale_local_gradients: bool = True,
    algorithm: str | None = None,
    topology: object = None,
    **settings: Any,
) -> Any:
    """Wraps an optimizer of Keras 3 so that its step keeps all workers' replicas together (Horovod's function and arguments).

    With algorithm `allreduce`, gradients are averaged before they are applied. With a gossip algorithm, gradients stay local
    and after each step the variables are mixed with those of neighbours. XLA cannot compile either: `model.compile()` turns
    `jit_compile` off and says so.

    Args:
        optimizer: any `keras.optimizers.Optimizer`; of a `LossScaleOptimizer` the inner one is wrapped.
        name: what the names of operations begin with; default: "Distributed" and the optimizer's class.
        device_dense, device_sparse: as in Horovod; data cross the boundary of the graph on the host.
        compression: a member of `Compression`; what dense gradients are turned into on their way. `allreduce` only.
        sparse_as_dense: tf.IndexedSlices travel as dense tensors. Otherwise their indices and values are gathered.
        gradient_predivide_factor: with Average, gradients are divided by it before the sum, and by size / it after.
        op: Average or Sum, Min, Max, Product of the gradients. Gossip knows Average only.
        backward_passes_per_step: gradients of so many calls of `apply()` are added up before they are applied.
        average_aggregated_gradients: divide those sums by `backward_passes_per_step`.
        num_groups: deprecated by Horovod; use `groups`.
        groups: gradients that are negotiated together: a number of groups, or lists of variables. `allreduce` only.
        process_set: the ranks that keep their replicas together. A rank outside of it steps by itself.
        scale_local_gradients: divide the gradients of local variables by the number of ranks.
        algorithm, topology, settings: override the configuration for this optimizer; names as for `init()`.

    Returns:
        A `keras.optimizers.Optimizer`, saved and loaded with the model.

    Raises:
        NotInitializedError: before `init()`. ConfigError: an unknown algorithm or setting. ValueError: something else than an
        optimizer of Keras 3, options that contradict each other or the algorithm, a process set that is not registered.
    """
    _check_optimizer(optimizer)
    given = {"algorithm": algorithm, "topology": topology, **settings}
    options = Options(
        compression=compression,
        sparse_as_dense=sparse_as_dense,
        op=op,
        gradient_predivide_factor=gradient_predivide_factor,
        backward_passes_per_step=backward_passes_per_step,
        average_aggregated_gradients=average_aggregated_gradients,
        groups=choose_groups(groups, num_groups),
        process_set=process_set,
        scale_local_gradients=scale_local_gradients,
        settings={key: value for key, value in given.items() if value is not None},
    )
    options.algorithm()
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # Around it, ours would be wrapped again by a model of mixed precision, and the loss scaled twice.
        optimizer.inner_optimizer = DistributedKerasOptimizer(optimizer.inner_optimizer, options, name)
        return optimizer
    return DistributedKerasOptimizer(optimizer, options, name)


def PartialDistributedOptimizer(
    optimizer: Any,
    name: str | None = None,
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    sparse_as_dense: bool = False,
    gradient_predivide_factor: float = 1.0,
    op: int = Average,
    backward_passes_per_step: int = 1,
    average_aggregated_gradients: bool = False,
    groups: Groups = None,
    process_set: ProcessSet = global_process_set,
    local_layers: Any = None,
    scale_local_gradients: bool = True,
    **settings: Any,
) -> Any:
    """As `DistributedOptimizer`, except for layers that stay local (Horovod's function).

    Args:
        local_layers: a Keras layer, or several, that are this worker's own; built.

    The other arguments are those of `DistributedOptimizer`.
    """
    local = variables_of(local_layers)
    wrapper = DistributedOptimizer(
        optimizer,
        name,
        device_dense,
        device_sparse,
        compression,
        sparse_as_dense,
        gradient_predivide_factor,
        op,
        backward_passes_per_step,
        average_aggregated_gradients,
        groups=groups,
        process_set=process_set,
        scale_local_gradients=scale_local_gradients,
        **settings,
    )
    for variable in local:
        distributed_of(wrapper).register_local_var(variable)
    return wrapper


def distributed_of(optimizer: Any) -> Any:
    """The distributed optimizer that this one is, or scales the loss for; None if there is none."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer if isinstance(optimizer, DistributedKerasOptimizer) else None


def _check_optimizer(optimizer: Any) -> None:
    if distributed_of(optimizer) is not None:
        raise ValueError("the optimizer is distributed already: pass the plain Keras optimizer")
    if type(optimizer).__module__.partition(".")[0] == "tf_keras":
        raise ValueError(f"{type(optimizer).__name__}: {LEGACY}")
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(f"an optimizer of Keras 3 is needed, not {type(optimizer).__name__}")
