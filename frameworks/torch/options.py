"""What can be asked of a `DistributedOptimizer`, and whether it makes sense."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.collectives import Average
from hvd_gossip.gradient_options import check_passes, check_reduction, choose_groups

from .compression import Compression, Compressor

ParamGroups = Sequence[Mapping[str, Any]]
Groups = int | Sequence[Sequence[torch.Tensor]] | None


@dataclass(frozen=True)
class Options:
    """The arguments of `DistributedOptimizer` (see there) in a form that can be pickled.

    Attributes:
        names: the name of each parameter, in the order of the parameter groups at the time of wrapping.
        groups: number of groups, or the names of each group's parameters.
        settings: overrides of the configuration, `topology` among them.
    """

    names: tuple[str, ...] = ()
    compression: type[Compressor] = Compression.none
    backward_passes_per_step: int = 1
    op: int = Average
    gradient_predivide_factor: float = 1.0
    groups: int | tuple[tuple[str, ...], ...] | None = None
    sparse_as_dense: bool = False
    process_set: ProcessSet = global_process_set
    algorithm: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_passes(self.backward_passes_per_step)
        check_reduction(self.op, self.gradient_predivide_factor, self.process_set)

    def with_passes(self, passes: int) -> Options:
        """The same with another `backward_passes_per_step`."""
        return dataclasses.replace(self, backward_passes_per_step=passes)


def name_parameters(
    groups: ParamGroups, named_parameters: Iterable[tuple[str, torch.Tensor]] | None
) -> dict[torch.Tensor, str]:
    """The name of every parameter of the groups.

    Args:
        groups: an optimizer's parameter groups.
        named_parameters: what `model.named_parameters()` gives; may name more parameters. None: names by position.

    Raises:
        ValueError: no tuples, a name twice, or a parameter without a name (Horovod's errors).
    """
    if named_parameters is None:
        return {p: default_name(i, j) for i, group in enumerate(groups) for j, p in enumerate(group["params"])}
    named = list(named_parameters)
    if any(not isinstance(pair, tuple) for pair in named):
        raise ValueError(
            "named_parameters should be a sequence of tuples (name, parameter), usually produced by "
            "model.named_parameters()."
        )
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        raise ValueError(f"Parameter names in named_parameters must be unique. Found duplicates: {', '.join(twice)}")
    names = {parameter: name for name, parameter in named}
    missing = [(i, j) for i, group in enumerate(groups) for j, p in enumerate(group["params"]) if p not in names]
    if missing:
        places = ", ".join(f"param_groups[{i}]['params'][{j}]" for i, j in missing)
        raise ValueError(f"named_parameters was specified, but one or more model parameters were not named: {places}")
    return names


def default_name(group: int, index: int) -> str:
    """Horovod's name of a parameter that nobody named."""
    return f"allreduce.noname.{group}.{index}"


def name_groups(
    groups: Groups, num_groups: int, names: Mapping[torch.Tensor, str]
) -> int | tuple[tuple[str, ...], ...] | None:
    """`groups` with names in place of tensors.

    Raises:
        ValueError: neither a non-negative integer nor lists of tensors, or a parameter is in two groups.
    """
    groups = choose_groups(groups, num_groups, 3)
    if groups is None or (isinstance(groups, int) and groups > 0):
        return groups
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, (list, tuple)) for group in groups):
        raise ValueError("groups should be a non-negative integer or a list of list of torch.Tensor.")
    members = [parameter for group in groups for parameter in group]
    if not all(isinstance(parameter, torch.Tensor) for parameter in members):
        raise ValueError("groups must consist of torch.Tensor.")
    if len({id(parameter) for parameter in members}) < len(members):
        raise ValueError("A parameter can only appear once in groups.")
    return tuple(tuple(names[parameter] for parameter in group if parameter in names) for group in groups)
