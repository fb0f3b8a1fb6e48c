"""`DistributedGradientTape`: a gradient tape whose gradients are averages over the ranks."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.collectives import Average
from hvd_gossip.gradient_options import choose_groups

from .api import public
from .averaging import GradientAveraging, Groups
from .compression import Compression, Compressor
from .gossip import TapeMixings, mixes, undecided
from .local import LocalVariables, variables_of
from .meter import Meter

NAME = "DistributedGradientTape_Allreduce"
_meter = Meter()
_mixings = TapeMixings()


class DistributedTapeMixin(tf.GradientTape):  # type: ignore[misc]
    """Comes before the class of the user's tape in the method resolution order; see `DistributedGradientTape`."""

    _hvd_averaging: GradientAveraging
    _hvd_local: LocalVariables
    _hvd_mixes: bool
    _hvd_undecided: bool

    def register_local_source(self, source: Any) -> None:
        """This source's gradient stays local: it is not reduced, only scaled."""
        self._hvd_local.add(source)

    @public
    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        unconnected_gradients: Any = tf.UnconnectedGradients.NONE,
        use_generic_names: bool = False,
    ) -> Any:
        """The gradients, reduced over the ranks; in all but `use_generic_names` as `tf.GradientTape.gradient`.

        Args:
            use_generic_names: name the operations by the places of the sources alone, where ranks name variables differently.
        """
        gradients = super().gradient(target, sources, output_gradients, unconnected_gradients)
        flat = tf.nest.flatten(sources)

        def mix(chosen: Any, of: Any) -> list[Any]:
            _mixings.step(of, self._hvd_averaging)
            return list(chosen)

        def average(chosen: Any, of: Any) -> list[Any]:
            return self._hvd_averaging(chosen, [None] * len(chosen) if use_generic_names else of)

        def follow(chosen: Any, of: Any) -> list[Any]:
            given, choice = self._hvd_averaging.prepared(chosen), _mixings.choice(of, self._hvd_averaging)
            choice.follow(given)
            return choice.reduce(given, lambda: mix(given, of), lambda: average(given, of))

        reduce = follow if self._hvd_undecided else mix if self._hvd_mixes else average
        reduced = self._hvd_local.reduce_others(reduce, tf.nest.flatten(gradients), flat)
        return tf.nest.pack_sequence_as(sources, reduced)


def DistributedGradientTape(
    gradtape: Any,
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    sparse_as_dense: bool = False,
    op: int = Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: Groups = None,
    process_set: ProcessSet = global_process_set,
    scale_local_gradients: bool = True,
) -> Any:
    """Wraps a tape so that `gradient()` gives reductions over all ranks (Horovod's function and arguments).

    All gradients of one call of `gradient()` cross the boundary of the graph together, in one order on all ranks.

    Under a gossip algorithm gradients stay local, and `gradient()` mixes the variables among its sources with neighbours' ones:
    x(k+1) = sum_j W_ij x_j(k) - lr g(x_i(k)), where the optimizer does what comes after the minus sign. A step's update is
    what was done to the variables since the last call of `gradient()` for the same ones. With `auto` gradients are averaged
    until it is decided.

    Args:
        gradtape: a `tf.GradientTape`, before, while or after it records. What the result records the tape records.
        device_dense, device_sparse: as in Horovod; data cross the boundary of the graph on the host.
        compression: a member of `Compression`; what dense gradients are turned into on their way.
        sparse_as_dense: tf.IndexedSlices travel as dense tensors. Otherwise their indices and values are gathered.
        op: Average, Sum, Min, Max, Product or Adasum.
        gradient_predivide_factor: with Average, gradients are divided by it before the sum, and by size / it after.
        num_groups: deprecated by Horovod; use `groups`.
        groups: gradients that are negotiated together: a number of groups, or lists of variables.
        process_set: the ranks whose gradients are reduced. On others they stay as they are.
        scale_local_gradients: divide the gradients of `register_local_source` by the number of ranks.

    Returns:
        An instance of the tape's class (and of `DistributedTapeMixin`).

    Raises:
        ValueError, NotImplementedError: options that contradict each other.
    """
    averaging = GradientAveraging(
        NAME,
        compression,
        sparse_as_dense,
        op,
        gradient_predivide_factor,
        choose_groups(groups, num_groups),
        process_set,
        _meter,
    )
    mixing = mixes(averaging)
    cls = distributed_class(type(gradtape))  # type: ignore[arg-type]  # mypy takes the instances' __hash__
    tape = cls.__new__(cls)
    tape.__dict__ = vars(gradtape)  # one state: what one of the two records, the other has recorded
    tape._hvd_averaging = averaging
    tape._hvd_mixes = mixing
    tape._hvd_undecided = undecided(averaging)
    tape._hvd_local = LocalVariables(process_set, scale_local_gradients)
    return tape


def PartialDistributedGradientTape(
    gradtape: Any,
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    sparse_as_dense: bool = False,
    op: int = Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: Groups = None,
    process_set: ProcessSet = global_process_set,
    local_layers: Any = None,
    scale_local_gradients: bool = True,
) -> Any:
    """As `DistributedGradientTape`, except for layers whose gradients stay local (Horovod's function).

    Args:
        local_layers: a Keras layer, or several, that are this worker's own; built.

    The other arguments are those of `DistributedGradientTape`.

    Raises:
        ValueError: something else than layers.
    """
    tape = DistributedGradientTape(
        gradtape,
        device_dense,
        device_sparse,
        compression,
        sparse_as_dense,
        op,
        gradient_predivide_factor,
        num_groups,
        groups,
        process_set,
        scale_local_gradients,
    )
    for variable in variables_of(local_layers):
        tape.register_local_source(variable)
    return tape


@functools.cache
def distributed_class(plain: type) -> Any:
    """The subclass of a tape's class: one for each class, of the same name."""
    if issubclass(plain, DistributedTapeMixin):
        return plain
    return type(plain.__name__, (DistributedTapeMixin, plain), {"__doc__": plain.__doc__})
