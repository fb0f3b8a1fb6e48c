"""Gradient averaging: all gradients of a step cross the boundary of the graph in one call, in one order on all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from hvd_gossip.basics import ProcessSet, global_process_set, operation_name, process_set_id
from hvd_gossip.calls import Call
from hvd_gossip.collectives import Average
from hvd_gossip.gradient_options import check_reduction, reduction_fields, split_evenly

from .compression import Compression, Compressor
from .names import of_variable
from .parts import Around, DensePart, Part, SparsePart, is_sparse, reduce_parts
from .variables import bare

Groups = int | Sequence[Sequence[Any]] | None
Gradients = Sequence[Any]
"""tf.Tensor, tf.IndexedSlices, or None where there is no gradient."""


@dataclass(frozen=True)
class GradientAveraging:
    """Reduces gradients over the ranks of a process set.

    Attributes:
        name: what the names of the operations begin with.
        compression: what dense gradients are turned into on their way.
        sparse_as_dense: tf.IndexedSlices travel as dense tensors. Otherwise their rows are gathered.
        op: Average, Sum, Min, Max, Product or Adasum.
        gradient_predivide_factor: with Average, divides before the sum; what is left of the average is done after it.
        groups: gradients that are negotiated together: a number of groups, or lists of variables.
        process_set: the ranks that take part. On a rank outside of it gradients stay as they are.
        around: carries out each reduction, which is a step's: for metrics.

    Raises:
        ValueError, NotImplementedError: options that contradict each other: see `check_reduction`.
    """

    name: str
    compression: type[Compressor] = Compression.none
    sparse_as_dense: bool = False
    op: int = Average
    gradient_predivide_factor: float = 1.0
    groups: Groups = None
    process_set: ProcessSet = global_process_set
    around: Around | None = None

    def __post_init__(self) -> None:
        check_reduction(self.op, self.gradient_predivide_factor, self.process_set)
        check_groups(self.groups)

    @property
    def alone(self) -> bool:
        """Whether no other rank takes part."""
        return not self.process_set.included() or self.process_set.size() == 1

    def __call__(self, gradients: Gradients, variables: Sequence[Any]) -> list[Any]:
        """The reduced gradients: as many, None where there was none.

        Args:
            gradients: one a variable; None on all ranks, or on none.
            variables: tf.Variable, keras.Variable or tensors; their names become part of the operations' names.

        Raises:
            ValueError: types that cannot be communicated, or a process set that is not registered.
        """
        gradients = self.prepared(gradients)
        if self.alone:
            return gradients
        present = [place for place, gradient in enumerate(gradients) if gradient is not None]
        dense = [place for place in present if not is_sparse(gradients[place])]
        bundles = [*self._bundles(dense, variables), *([place] for place in present if place not in dense)]
        parts = [self._part(bundle, gradients, variables) for bundle in bundles]
        reduced: list[Any] = [None] * len(gradients)
        results_of = reduce_parts(parts, f"HorovodAllreduce_{self.name}", self.around)
        for bundle, results in zip(bundles, results_of, strict=True):
            for place, result in zip(bundle, results, strict=True):
                reduced[place] = result
        return reduced

    def prepared(self, gradients: Gradients) -> list[Any]:
        """The gradients as they travel: with `sparse_as_dense` all of them dense."""
        return [tf.convert_to_tensor(one) if self.sparse_as_dense and is_sparse(one) else one for one in gradients]

    def _bundles(self, dense: Sequence[int], variables: Sequence[Any]) -> list[list[int]]:
        """The dense gradients that travel together, by their places; all of them unless groups were asked for."""
        if self.groups is None:
            bundles = [list(dense)]
        elif isinstance(self.groups, int):
            bundles = split_evenly(dense, self.groups)
        else:
            places = {id(bare(variables[place])): place for place in dense}
            bundles = [[places[id(bare(one))] for one in group if id(bare(one)) in places] for group in self.groups]
            grouped = {place for bundle in bundles for place in bundle}
            bundles += [[place] for place in dense if place not in grouped]
        return [bundle for bundle in bundles if bundle]

    def _part(self, bundle: Sequence[int], gradients: Gradients, variables: Sequence[Any]) -> Part:
        first = gradients[bundle[0]]
        more = f" and {len(bundle) - 1} more" if len(bundle) > 1 else ""
        name = operation_name("allreduce", f"{self.name}/{of_variable(bundle[0], variables[bundle[0]])}{more}")
        fields = {
            "process_set": process_set_id(self.process_set),
            **reduction_fields(self.op, self.gradient_predivide_factor),
        }
        if is_sparse(first):
            return SparsePart(first, Call("allreduce", name, fields))
        return DensePart(
            [gradients[place] for place in bundle], Call("allreduce", name, fields, True), self.compression
        )


def check_groups(groups: Groups) -> None:
    """Raises ValueError unless groups are None, a positive number, or lists of variables, each in one of them."""
    if groups is None or (isinstance(groups, int) and groups > 0):
        return
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, (list, tuple)) for group in groups):
        raise ValueError("groups should be a non-negative integer or a list of list of tf.Variable.")
    members = [id(bare(variable)) for group in groups for variable in group]
    if len(set(members)) < len(members):
        raise ValueError("A variable can only appear once in groups.")
