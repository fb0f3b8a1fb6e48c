"""Outer steps: a layer over any algorithm that mixes parameters.

Every `outer_every` steps of its own a worker meets all others for the exact average a of their parameters, and instead of a
all go on from what an outer optimizer makes of the way gone since the last time. With A the parameters after the last outer
step (the same on all workers), D = A - a the way gone, U = 0 at first, alpha = outer_lr and beta = outer_momentum:

    slowmo      U <- beta U + D,      A <- A - alpha U
                Wang, Tantia, Ballas, Rabbat: "SlowMo: Improving Communication-Efficient Distributed SGD with Slow Momentum",
                ICLR 2020, Algorithm 1 (there U is divided by the inner learning rate, and multiplied by it again)
    nesterov    U <- beta U + D,      A <- A - alpha (D + beta U)
                Douillard et al.: "DiLoCo: Distributed Low-Communication Training of Language Models", 2023, Algorithm 1.

With alpha = 1 and beta = 0 both are the plain exact average. What the wrapped optimizer remembers is kept from one period to
the next ("maintain" in SlowMo's terms). With a learning rate that falls, U keeps what was gone at the older, larger rate; in
SlowMo's form it is rescaled with the rate.

The outer step is a meeting, whatever the algorithm beneath: workers with more steps to take wait for those who are behind,
those who have departed or rest are left out. Its first time, and the first time after a rest (whose workers have missed
some), A and U are averaged with the rest, so that they are the same on all workers again.

Memory: A and U beside what the algorithm beneath keeps. Bytes: an allreduce every outer_every steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import numpy as np

from hvd_gossip.algorithms.base import Algorithm, Context, Wait
from hvd_gossip.buffers.arrays import add_scaled, scale
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")


class Outer(Algorithm):
    """An algorithm with an outer step. Made by `registry.make_algorithm`.

    Attributes:
        base: the algorithm beneath, whose class attributes this one shows as its own.
    """

    def __init__(self, context: Context, base: Algorithm) -> None:
        self.base = base
        super().__init__(context)
        self._anchor = context.replica.companion()
        self._velocity = context.replica.companion()
        self._steps = 0
        self._anchored = False
        self._common = False

    def __getattr__(self, name: str) -> Any:
        """What the algorithm beneath says of itself: its name, what it averages, its weights."""
        if name == "base":  # not there yet, as while unpickling
            raise AttributeError(name)
        return getattr(self.base, name)

    @property
    def phase(self) -> int:
        """The base's: a meeting of either is a meeting of both."""
        return self.base.phase

    @phase.setter
    def phase(self, value: int) -> None:
        """`Algorithm.__init__` sets it; the base has its own."""

    def start(self) -> None:
        self.base.start()

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        self._anchor_first()
        result = yield from self.base.step(update)
        self._steps += 1
        if self._steps % self.context.settings.outer_every == 0:
            yield self.base.pause
            self.base.settle()
            yield self._meet
            self._outer_step()
            yield self._go_on
        return result

    def settle(self) -> None:
        self.base.settle()

    def preview(self) -> None:
        self.base.preview()

    async def average(self, name: str) -> int:
        return await self.base.average(name)

    async def pause(self) -> None:
        await self.base.pause()

    async def rest(self) -> None:
        await self.base.rest()

    async def resume(self, phase: int | None = None) -> None:
        if phase is not None:
            self._steps = 0
            self._common = False
        await self.base.resume(phase)

    async def depart(self) -> None:
        await self.base.depart()

    def forget(self) -> None:
        self.base.forget()
        for flat in self._velocity.flats:
            flat.fill(0)
        self._anchored = False

    def state_dict(self) -> dict[str, Any]:
        return {
            "base": self.base.state_dict(),
            "steps": self._steps,
            "anchored": self._anchored,
            "common": self._common,
            "anchor": self._anchor.state(),
            "velocity": self._velocity.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base.load_state_dict(state["base"])
        self._anchor.load(state["anchor"], "anchors")
        self._velocity.load(state["velocity"], "outer momenta")
        self._steps, self._anchored, self._common = state["steps"], state["anchored"], state["common"]

    def _anchor_first(self) -> None:
        """Not at the beginning: parameters are broadcast after the optimizer is made."""
        if not self._anchored:
            self._anchor.copy_from(self.context.replica.flats)
            self._anchored = True

    async def _meet(self) -> None:
        name = f"outer.{self.context.channel}.{self.base.phase}"
        new = np.array([0.0 if self._common else 1.0])
        await self.context.exact_average(f"{name}.new", [new])
        if new[0] > 0.0:
            await self.context.exact_average(f"{name}.common", [*self._anchor.flats, *self._velocity.flats])
            self._common = True
        await self.base.average(name)

    def _outer_step(self) -> None:
        replica, chunks = self.context.replica, self.context.replica.chunks
        for chunk, anchor, velocity in zip(chunks, self._anchor.chunks, self._velocity.chunks, strict=True):
            with chunk.space.training(chunk):
                self._advance(chunk, anchor, velocity)
        replica.applied += 1

    def _advance(self, chunk: Chunk, anchor: Array, velocity: Array) -> None:
        """One chunk: the mean that it holds becomes the next anchor."""
        settings = self.context.settings
        rate, momentum = settings.outer_lr, settings.outer_momentum
        scale(velocity, momentum)
        add_scaled(velocity, 1.0, anchor)
        add_scaled(velocity, -1.0, chunk.x)
        if settings.outer == "slowmo":
            chunk.x[...] = anchor
            add_scaled(chunk.x, -rate, velocity)
        else:
            scale(chunk.x, rate)
            add_scaled(chunk.x, 1.0 - rate, anchor)
            add_scaled(chunk.x, -rate * momentum, velocity)
        anchor[...] = chunk.x

    async def _go_on(self) -> None:
        """Where partners need not be in step, nobody asks for x before everybody has made it."""
        if not self.base.synchronous:
            await self.context.exact_average(f"outer.{self.context.channel}.{self.base.phase}.end", [])
        await self.base.resume()
