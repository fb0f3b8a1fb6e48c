"""`DistributedOptimizer`: around an optimizer of tf.compat.v1, or, through `keras`, around one of Keras 3."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.choice.chooser import refuse_undecided
from hvd_gossip.collectives import Adasum, Average
from hvd_gossip.gradient_options import choose_groups

from .adasum import AdasumOfDeltas
from .averaging import GradientAveraging, Groups
from .compression import Compression, Compressor
from .gossip import mixes, undecided
from .meter import Meter
from .v1_optimizers import AveragingOptimizer, MixingOptimizer


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
    algorithm: str | None = None,
    topology: object = None,
    **settings: Any,
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
        algorithm, topology, settings: override the configuration for this optimizer; names as for `init()`. Keras only.

    Under a gossip algorithm gradients stay local, and each step is followed by mixing the variables with neighbours' ones.

    Raises:
        NotInitializedError: before `init()`. ValueError, NotImplementedError: options that contradict each other or the
        algorithm, or something else than an optimizer. ConfigError: algorithm `auto`, not decided yet, and an optimizer of
        tf.compat.v1.
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
            algorithm=algorithm,
            topology=topology,
            **settings,
        )
    given = {"algorithm": algorithm, "topology": topology, **settings}
    refused = [key for key, value in given.items() if value is not None]
    if refused:
        raise ValueError(f"{', '.join(refused)}: optimizers of tf.compat.v1 follow the settings of hvd.init()")
    own = name or f"Distributed{'Delta' if op == Adasum else ''}{type(optimizer).__name__}"
    averaging = GradientAveraging(
        own, compression, sparse_as_dense, op, gradient_predivide_factor, groups, process_set, Meter()
    )
    if undecided(averaging):
        refuse_undecided(runtime.current().chooser, "optimizers of tf.compat.v1")
    if mixes(averaging):
        options = (backward_passes_per_step, average_aggregated_gradients, scale_local_gradients)
        return MixingOptimizer(optimizer, own, use_locking, averaging, *options)
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
    is_legacy = type(optimizer).__module__.partition(".")[0] == "tf_keras"  # told apart, and refused, by `keras`
    if not is_legacy and not isinstance(optimizer, tf.keras.optimizers.Optimizer):
        raise ValueError(
            f"Provided optimizer doesn't inherit from either legacy TensorFlow or Keras optimizer: {optimizer}"
        )
    from hvd_gossip.tensorflow import keras  # its own package needs this one

    if options["op"] == Adasum:
        raise ValueError("op == Adasum is not supported yet with Keras")
    return keras.DistributedOptimizer(optimizer, **options)
