"""Local SGD: no exchange but the exact average, every H steps.

Stich: "Local SGD Converges Fast and Communicates Little", ICLR 2019; McMahan, Moore, Ramage, Hampson, Aguera y Arcas:
"Communication-Efficient Learning of Deep Networks from Decentralized Data" (FedAvg), AISTATS 2017.

    x_i(k+1) = x_i(k) + u_i(x_i(k)),     and where H divides k + 1:     x_i(k+1) = (1/n) sum_j [ x_j(k) + u_j(x_j(k)) ].

H is `mixing_period`: an exchange is the average of all. With an outer step (`outer`, every `outer_every` steps) that is the
only average: with nesterov and AdamW inside, it is DiLoCo (Douillard et al., 2023),

    --algorithm local --outer nesterov --outer-every 500 --outer-lr 0.7 --outer-momentum 0.9.

Exchanged: an allreduce every H steps. Kept: the sum over the workers changes by their updates alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import ClassVar, TypeVar

from hvd_gossip.algorithms.base import Algorithm, Context, Needs, Wait
from hvd_gossip.algorithms.settings import OUTER, MixingSettings
from hvd_gossip.errors import ConfigError

R = TypeVar("R")


class LocalSGD(Algorithm):
    """Every worker on its own, and the exact average every so many steps. Memory: none."""

    name = "local"
    paper = "Stich, Local SGD Converges Fast and Communicates Little, ICLR 2019"
    synchronous = True
    needs: ClassVar[Needs] = "none"
    default_topology = "complete"
    orders = ("sequential",)
    heeds = frozenset({"mixing_period", *OUTER})
    waits_for = "everybody, every k-th step"
    memory = "none"
    good_for = "few and slow links between workers of equal speed: an allreduce every H steps"
    bad_for = "data that differ between workers, where H is large; a straggler (all wait at each average)"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings = context.settings
        self._every = settings.mixing_period if settings.outer == "none" else 0
        self._steps = 0

    @classmethod
    def validate(cls, settings: MixingSettings) -> None:
        super().validate(settings)
        if settings.outer != "none" and settings.mixing_period > 1:
            raise ConfigError(
                f"with outer={settings.outer!r}, algorithm 'local' averages every outer_every={settings.outer_every} steps: "
                f"leave mixing_period={settings.mixing_period} at 1"
            )

    def start(self) -> None:
        """Nothing runs in the background."""

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        result = update()
        self._steps += 1
        if self._every and self._steps % self._every == 0:
            yield self._average
            self.context.replica.applied += 1
        return result

    async def _average(self) -> None:
        self.context.counters.exchanges += (
            await self.average(f"local.{self.context.channel}.{self.phase}.{self._steps}") - 1
        )

    async def pause(self) -> None:
        """Nothing is under way between two steps."""

    async def rest(self) -> None:
        """Nothing is under way between two steps."""

    async def resume(self, phase: int | None = None) -> None:
        self.phase = self.phase + 1 if phase is None else phase
        self._steps = 0

    async def depart(self) -> None:
        """The collectives announce the departure."""
