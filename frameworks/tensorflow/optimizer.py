"""`DistributedOptimizer`: around an optimizer of tf.compat.v1, or, through `keras`, around one of Keras 3."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.collectives import Adasum, Average
from hvd_gossip.gradient_options import choose_groups

from .adasum import AdasumOfDeltas
from .aggregation import GradientAggregation
from .api import public
from .averaging import GradientAveraging, Groups
from .compression import Compression, Compressor
from .delegating import DelegatingOptimizer
from .local import LocalVariables


class AveragingOptimizer(DelegatingOptimizer):
    """An optimizer of tf.compat.v1 whose gradients are reduced in `compute_gradients()`.

    Args:
        optimizer: makes the updates.
        averaging: reduces the gradients.
        passes: backward passes a step: `compute_gradients()` adds gradients up, and `apply_gradients()` does nothing but
            count the global step, until there are as many.
        average_aggregated: divide the sums of several passes by their number.
        scale_local: divide local gradients by the number of ranks.
    """

    def __init__(
        self,
        optimizer: Any,
        name: str,
        use_locking: bool,
        averaging: GradientAveraging,
        passes: int = 1,
        average_aggregated: bool = False,
        scale_local: bool = True,
    ) -> None:
        super().__init__(optimizer, name, use_locking)
        self._averaging = averaging
        self._local = LocalVariables(averaging.process_set, scale_local)
        self._aggregation = (
            GradientAggregation(passes, average_aggregated, averaging.sparse_as_dense) if passes != 1 else None
        )

    def register_local_var(self, var: Any) -> None:
        """This variable's gradients stay local: they are not reduced, only scaled."""
        self._local.add(var)

    @public
    def compute_gradients(self, *args: Any, **kwargs: Any) -> list[tuple[Any, Any]]:
        """The wrapped optimizer's gradients, reduced over the ranks, with their variables."""
        pairs = self._optimizer.compute_gradients(*args, **kwargs)
        gradients, variables = [gradient for gradient, _ in pairs], [variable for _, variable in pairs]
        if self._aggregation is None:
            reduced = self._reduce(gradients, variables)
        else:
            given = [variable for gradient, variable in pairs if gradient is not None]
            reduced = self._aggregation.add(gradients, lambda sums: self._reduce(sums, given))
        return list(zip(reduced, variables, strict=True))

    @public
    def apply_gradients(self, grads_and_vars: Any, global_step: Any = None, name: str | None = None) -> Any:
        """The wrapped optimizer's, if a step is due."""
        if self._aggregation is None:
            return self._optimizer.apply_gradients(grads_and_vars, global_step, name)
        pairs = list(grads_and_vars)
        return self._aggregation.apply(
            lambda: self._optimizer.apply_gradients(pairs, global_step, name),
            lambda: None if global_step is None else tf.compat.v1.assign_add(global_step, 1),
            [gradient for gradient, _ in pairs],
        )

    def _reduce(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        with tf.name_scope(f"{self._name}_Allreduce"):
            return self._local.reduce_others(self._averaging, gradients, variables)


def DistributedOptimizer(
    optimizer: Any,
    name: str | None = None,
    use_locking: bool = False,
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    sparse_as_dense: bool = False,
    backward_passes_per_step: int = 1,
    op: int = Average,
    gradient_predivide_factor: float = 1.0,
    average_aggregated_gradients: bool = False,
    num_groups: int = 0,
    groups: Groups = None,
    process_set: ProcessSet = global_process_set,
    scale_local_gradients: bool = True,
) -> Any:
    """Wraps an optimizer so that its step keeps all workers' replicas together (Horovod's function and arguments).

    Args:
        optimizer: of tf.compat.v1.train, in graphs or eagerly; or of Keras, for which see
            `hvd_gossip.tensorflow.keras.DistributedOptimizer`.
        name: what the names of operations begin with; default: "Distributed" and the optimizer's class.
        use_locking: as for every optimizer of tf.compat.v1.
        device_dense, device_sparse: as in Horovod; data cross the boundary of the graph on the host.
        compression: a member of `Compression`; what dense gradients are turned into on their way.
        sparse_as_dense: tf.IndexedSlices travel as dense tensors. Otherwise their indices and values are gathered.
        backward_passes_per_step: gradients of so many calls of `compute_gradients()` are added up before they are reduced
            and applied.
        op: Average or Sum, Min, Max, Product of the gradients; or Adasum of what the ranks' own steps would change
            (tf.compat.v1 only).
        gradient_predivide_factor: with Average, gradients are divided by it before the sum, and by size / it after.
        average_aggregated_gradients: divide the sums of `backward_passes_per_step` by it.
        num_groups: deprecated by Horovod; use `groups`.
        groups: gradients that are negotiated together: a number of groups, or lists of variables.
        process_set: the ranks whose gradients are reduced. On others they stay as they are.
        scale_local_gradients: divide the gradients of local variables by the number of ranks.

    Raises:
        ValueError, NotImplementedError: options that contradict each other, or something else than an optimizer.
    """
    groups = choose_groups(groups, num_groups)
    if op == Adasum and average_aggregated_gradients:
        raise ValueError("Adasum does not support average_aggregated_gradients == True")
    if not isinstance(optimizer, tf.compat.v1.train.Optimizer):
        return _keras_optimizer(
            optimizer,
            name=name,
            device_dense=device_dense,
            device_sparse=device_sparse,
            compression=compression,
            sparse_as_dense=sparse_as_dense,
            gradient_predivide_factor=gradient_predivide_factor,
            op=op,
            backward_passes_per_step=backward_passes_per_step,
            average_aggregated_gradients=average_aggregated_gradients,
            groups=groups,
            process_set=process_set,
            scale_local_gradients=scale_local_gradients,
        )
    own = name or f"Distributed{'Delta' if op == Adasum else ''}{type(optimizer).__name__}"
    averaging = GradientAveraging(own, compression, sparse_as_dense, op, gradient_predivide_factor, groups, process_set)
    if op == Adasum:
        return AdasumOfDeltas(optimizer, own, use_locking, averaging, backward_passes_per_step)
    return AveragingOptimizer(
        optimizer,
        own,
        use_locking,
        averaging,
        backward_passes_per_step,
        average_aggregated_gradients,
        scale_local_gradients,
    )


def _keras_optimizer(optimizer: Any, **options: Any) -> Any:
    if not isinstance(optimizer, tf.keras.optimizers.Optimizer):
        raise ValueError(
            f"Provided optimizer doesn't inherit from either legacy TensorFlow or Keras optimizer: {optimizer}"
        )
    from hvd_gossip.tensorflow import keras  # its own package needs this one

    if options["op"] == Adasum:
        raise ValueError("op == Adasum is not supported yet with Keras")
    return keras.DistributedOptimizer(optimizer, **options)
