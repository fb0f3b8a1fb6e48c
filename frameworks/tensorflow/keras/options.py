"""What can be asked of a `DistributedOptimizer` for Keras, whether it makes sense, and how it is saved with a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hvd_gossip import runtime
from hvd_gossip.algorithms.base import Algorithm
from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.collectives import Adasum, Average
from hvd_gossip.config import mixing_settings
from hvd_gossip.gradient_options import check_mixing, check_passes, check_reduction, follows_choice
from hvd_gossip.process_sets import UNKNOWN, registered

from ..averaging import Groups, check_groups
from ..compression import Compression, Compressor
from ..gossip import TUNING


@dataclass(frozen=True)
class Options:
    """The arguments of `DistributedOptimizer` (see there).

    Attributes:
        settings: overrides of the configuration, `algorithm` and `topology` among them.

    Raises:
        ValueError, NotImplementedError: options that contradict each other.
    """

    compression: type[Compressor] = Compression.none
    sparse_as_dense: bool = False
    op: int = Average
    gradient_predivide_factor: float = 1.0
    backward_passes_per_step: int = 1
    average_aggregated_gradients: bool = False
    groups: Groups = None
    process_set: ProcessSet = global_process_set
    scale_local_gradients: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.op == Adasum:
            raise ValueError("op == Adasum is not supported yet with Keras")
        check_reduction(self.op, self.gradient_predivide_factor, self.process_set)
        check_passes(self.backward_passes_per_step)
        check_groups(self.groups)

    @property
    def follows_choice(self) -> bool:
        """Whether `--algorithm auto` decides for the optimizer."""
        return follows_choice(self.op, self.process_set, self.settings.get("algorithm"))

    def algorithm(self) -> type[Algorithm]:
        """The algorithm that these options ask for, under the configuration in force: with `auto` that until it is decided.

        Raises:
            NotInitializedError: before `init()`. ConfigError: an unknown algorithm or setting, or one without meaning.
            ValueError: the options contradict the algorithm, or the process set is not registered.
        """
        config = runtime.current().config.override(dict(self.settings))
        algorithm = find_algorithm(config.algorithm)
        algorithm.validate(mixing_settings(config))
        if self.process_set.process_set_id is None:
            raise ValueError(UNKNOWN)
        if algorithm.averages != "gradients":
            default = Options()
            idle = [name for name in TUNING if getattr(self, name) != getattr(default, name)]
            check_mixing(algorithm.name, self.op, idle)
        return algorithm

    def config(self) -> dict[str, Any]:
        """As JSON can hold them, for `options_of`. Groups given as lists are left out: they change no results.

        Raises:
            ValueError: a compressor that is none of `Compression`'s has no name to be saved under.
        """
        config = {one.name: getattr(self, one.name) for one in fields(self)}
        groups = self.groups if isinstance(self.groups, int) else None
        ranks = None if self.process_set is global_process_set else self.process_set.ranks
        own = {"compression": _name_of(self.compression), "op": int(self.op), "groups": groups, "process_set": ranks}
        return {**config, **own, "settings": dict(self.settings)}


def options_of(config: Mapping[str, Any]) -> Options:
    """The options that `Options.config` gave.

    Raises:
        ValueError: their process set is not registered now.
    """
    compression = getattr(Compression, config["compression"])
    return Options(**{**config, "compression": compression, "process_set": _process_set_of(config["process_set"])})


def _name_of(compression: type[Compressor]) -> str:
    for name, member in vars(Compression).items():
        if member is compression:
            return name
    raise ValueError(f"a model cannot be saved with {compression.__name__}: only hvd.Compression's members have names")


def _process_set_of(ranks: list[int] | None) -> ProcessSet:
    if ranks is None:
        return global_process_set
    for process_set in registered():
        if process_set.ranks == ranks:
            return process_set
    raise ValueError(f"the optimizer was saved with the process set of ranks {ranks}, which is not registered now")
