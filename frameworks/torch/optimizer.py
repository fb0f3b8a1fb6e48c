"""`DistributedOptimizer`: a torch optimizer whose step keeps the replicas together.

The wrapper's class is a subclass of the user's optimizer class with one mixin before it, made once for each class. It shares
the wrapped optimizer's parameter groups and state, runs that class's own `step`, and leaves all communication to a strategy
(`averaging.py`, `mixing.py`). It can be pickled, deep-copied and sub-classed.
"""

from __future__ import annotations

import copyreg
import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from hvd_gossip import runtime
from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.collectives import Adasum, Average
from hvd_gossip.gradient_options import follows_choice
from hvd_gossip.process_sets import UNKNOWN
from hvd_gossip.runtime import Runtime

from .adasum import AdasumOfDeltas
from .averaging import GradientAveraging
from .compression import Compression, Compressor
from .mixing import ParameterMixing
from .options import Groups, Options, ParamGroups, name_groups, name_parameters
from .strategy import Closure, Strategy, parameters_of


class DistributedOptimizerMixin(torch.optim.Optimizer):
    """Comes before the user's optimizer class in the method resolution order; see `DistributedOptimizer`.

    A class that derives from it, and from an optimizer class, is used like that class: `_hvd_options` says how it
    communicates.
    """

    _hvd_options: Options = Options()
    _hvd_strategy: Strategy | None = None
    _hvd_synchronize: bool = True
    _hvd_wrapped: weakref.ref[torch.optim.Optimizer] | None = None
    _hvd_gossip_state: Mapping[str, Any] = {}

    def synchronize(self) -> None:
        """Returns when the communication of this step is complete: gradients may be read and changed.

        With `allreduce`: waits until all gradients are averaged, zeros for parameters that have none. With gossip, and
        with op=Adasum, there is nothing to wait for: gradients stay local.
        """
        self._hvd().synchronize(self.param_groups)

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """Inside, `step()` takes the gradients as they are: for use after `synchronize()`.

        Raises:
            AssertionError: with op=Adasum, which has no gradients to synchronize.
        """
        self._hvd().check_skip_synchronize()
        self._hvd_synchronize = False
        try:
            yield
        finally:
            self._hvd_synchronize = True

    def step(self, closure: Closure | None = None, **kwargs: Any) -> Any:
        """Synchronizes, then does the wrapped optimizer's step.

        Args:
            closure: as for the wrapped optimizer. With `allreduce` the gradients and the loss are averaged after each
                evaluation, so that optimizers that decide by the loss (LBFGS) decide alike on every rank.
            kwargs: handed to the wrapped optimizer.
        """
        wrapped_step = super().step

        def update(closure: Closure | None) -> Any:
            return wrapped_step(**kwargs) if closure is None else wrapped_step(closure, **kwargs)

        result = self._hvd().step(self.param_groups, update, closure, self._hvd_synchronize)
        self._hvd_tell_schedulers()
        self._hvd_follow_choice()
        return result

    step.hooked = True  # type: ignore[attr-defined]  # the wrapped class's step runs the step hooks; not twice

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients.

        Raises:
            AssertionError: gradients are being averaged: between `backward()` and `step()` or `synchronize()`.
        """
        strategy = self._hvd_strategy
        if strategy is not None and runtime.is_initialized() and strategy.runtime is runtime.current():
            strategy.before_zero_grad()
        super().zero_grad(set_to_none)

    @property
    def backward_passes_per_step(self) -> int:
        """How many backward passes accumulate gradients before one step."""
        return self._hvd_options.backward_passes_per_step

    def set_backward_passes_per_step(self, passes: int) -> None:
        """Changes `backward_passes_per_step` (at least 1), from the next backward pass on."""
        self._hvd_options = self._hvd_options.with_passes(passes)
        if self._hvd_strategy is not None:
            self._hvd_strategy.options = self._hvd_options
            self._hvd_strategy.reset()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As the plain optimizer's, with which checkpoints can be exchanged."""
        if self._hvd_strategy is not None:
            self._hvd_strategy.reset()
        super().load_state_dict(state_dict)

    def gossip_state_dict(self) -> dict[str, Any]:
        """What a checkpoint of this rank needs beside the model and `state_dict()`, a push-sum weight say; may be empty."""
        return dict(self._hvd_gossip_state) if self._hvd_strategy is None else self._hvd_strategy.state_dict()

    def load_gossip_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `gossip_state_dict()` gave."""
        self._hvd().load_state_dict(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # load_state_dict() makes new containers. Whoever shares the old ones, the wrapped optimizer and the schedulers
        # made on it, must see what it loaded.
        shared = {name: vars(self)[name] for name in ("param_groups", "state") if name in vars(self)}
        super().__setstate__(state)
        for name, container in shared.items():
            _refill(container, vars(self)[name])
            setattr(self, name, container)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        own = {"_hvd_options": self._hvd_options, "_hvd_gossip_state": self.gossip_state_dict()}
        return *_recipe(type(self)), {**self.__getstate__(), **own}

    def _hvd(self) -> Strategy:
        """The strategy; a new one after unpickling, and after `shutdown()` and `init()`."""
        now = runtime.current()
        if self._hvd_strategy is None or self._hvd_strategy.runtime is not now:
            self._hvd_strategy = _make_strategy(now, self._hvd_options, self.param_groups)
            self._hvd_strategy.load_state_dict(self._hvd_gossip_state)
            self._hvd_gossip_state = {}
        return self._hvd_strategy

    def _hvd_follow_choice(self) -> None:
        """`--algorithm auto`: nothing of a step is under way here, so that another strategy may take over."""
        options, now = self._hvd_options, runtime.current()
        if not follows_choice(options.op, options.process_set, options.algorithm):
            return
        if now.chooser is not None:
            now.choose(sum(p.nbytes for p in parameters_of(self.param_groups) if p.requires_grad))
        if self._hvd_strategy is not None and self._hvd_strategy.algorithm != now.config.algorithm:
            self._hvd_strategy.reset()
            self._hvd_strategy = None  # unhooks its gradients before the next one looks at them
            self._hvd_strategy = _make_strategy(now, options, self.param_groups)

    def _hvd_tell_schedulers(self) -> None:
        """Schedulers made on the wrapped optimizer would warn that it never stepped."""
        wrapped = None if self._hvd_wrapped is None else self._hvd_wrapped()
        if wrapped is not None:
            wrapped._opt_called = True  # type: ignore[attr-defined]


def DistributedOptimizer(
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
    compression: type[Compressor] = Compression.none,
    backward_passes_per_step: int = 1,
    op: int = Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: Groups = None,
    sparse_as_dense: bool = False,
    process_set: ProcessSet = global_process_set,
    algorithm: str | None = None,
    topology: object = None,
    **settings: Any,
) -> Any:
    """Wraps an optimizer so that its step keeps all workers' replicas together (Horovod's function and arguments).

    With algorithm `allreduce`, gradients are averaged while `backward()` still computes, and `step()` applies the
    averages. With a gossip algorithm, gradients stay local and `step()` mixes the parameters with those of neighbours.

    Args:
        optimizer: any `torch.optim.Optimizer`. It is left as it is; the wrapper shares its groups and state.
        named_parameters: what `model.named_parameters()` gives; names gradients on their way. Default: by position.
        compression: a member of `Compression`; the type that gradients travel in. `allreduce` only.
        backward_passes_per_step: backward passes before each `step()`; their gradients add up (they are not divided).
        op: Average or Sum, Min, Max, Product of the gradients; or Adasum of what the ranks' own steps would change, for
            which `synchronize()` does nothing and `skip_synchronize()` raises. Gossip knows Average only.
        gradient_predivide_factor: with Average, gradients are divided by it before the sum, and by size / it after.
        num_groups: deprecated by Horovod; use `groups`.
        groups: gradients that travel together: a number of groups, or lists of parameters. A hint; `allreduce` only.
        sparse_as_dense: sparse gradients travel as dense ones. Otherwise their indices and values are gathered.
        process_set: the ranks that keep their replicas together. A rank outside of it steps by itself.
        algorithm, topology, settings: override the configuration for this optimizer; names as for `init()`.

    Returns:
        An instance of the optimizer's class (and of `DistributedOptimizerMixin`): `synchronize()`,
        `skip_synchronize()`, `set_backward_passes_per_step()` and the gossip state come on top of that class's methods.

    Raises:
        NotInitializedError: before `init()`. ConfigError: an unknown algorithm or setting. ValueError: parameters
        without names, names twice, options that contradict each other or the algorithm, a process set that is not
        registered. NotImplementedError: Adasum in a process set.
    """
    if isinstance(optimizer, DistributedOptimizerMixin):
        raise ValueError("the optimizer is distributed already: pass the plain torch optimizer")
    now = runtime.current()
    names = name_parameters(optimizer.param_groups, named_parameters)
    options = Options(
        names=tuple(names[parameter] for parameter in parameters_of(optimizer.param_groups)),
        compression=compression,
        backward_passes_per_step=backward_passes_per_step,
        op=op,
        gradient_predivide_factor=gradient_predivide_factor,
        groups=name_groups(groups, num_groups, names),
        sparse_as_dense=sparse_as_dense,
        process_set=process_set,
        algorithm=algorithm,
        settings={key: value for key, value in {"topology": topology, **settings}.items() if value is not None},
    )
    strategy = _make_strategy(now, options, optimizer.param_groups)
    return _wrap(optimizer, options, strategy)


@functools.cache
def distributed_class(plain: type) -> type[DistributedOptimizerMixin]:
    """The subclass of an optimizer class that wraps its instances: one for each class, of the same name."""
    return type(plain.__name__, (DistributedOptimizerMixin, plain), {"_hvd_made_for": plain, "__doc__": plain.__doc__})


def _wrap(optimizer: torch.optim.Optimizer, options: Options, strategy: Strategy) -> DistributedOptimizerMixin:
    wrapper = _restore(type(optimizer))
    # A scheduler made on the optimizer has put a wrapped `step` on the instance, which would hide the distributed one.
    vars(wrapper).update({name: value for name, value in vars(optimizer).items() if name != "step"})
    wrapper._hvd_options = options
    wrapper._hvd_strategy = strategy
    wrapper._hvd_wrapped = weakref.ref(optimizer)
    return wrapper


def _make_strategy(now: Runtime, options: Options, groups: ParamGroups) -> Strategy:
    if options.process_set.process_set_id is None:
        raise ValueError(UNKNOWN)
    algorithm = find_algorithm(options.algorithm or now.config.algorithm)
    if algorithm.averages != "gradients" and options.process_set.included():
        return ParameterMixing(now, options, groups)
    kind = AdasumOfDeltas if options.op == Adasum and now.world.size > 1 else GradientAveraging
    return kind(now, options, groups)


def _recipe(cls: type) -> tuple[Any, tuple[Any, ...]]:
    """How to make an instance without `__init__`: for the classes made here, which no module holds, by what they wrap."""
    if "_hvd_made_for" in vars(cls):
        return _restore, (vars(cls)["_hvd_made_for"],)
    return copyreg.__newobj__, (cls,)  # type: ignore[attr-defined]


def _restore(plain: type[torch.optim.Optimizer]) -> DistributedOptimizerMixin:
    cls = distributed_class(plain)  # type: ignore[arg-type]  # mypy takes the instances' __hash__ for the class's
    return cls.__new__(cls)


def _refill(container: Any, content: Any) -> None:
    """Makes a list or dict hold what another one holds."""
    if container is content:
        return
    container.clear()
    if isinstance(container, dict):
        container.update(content)
    else:
        container.extend(content)
