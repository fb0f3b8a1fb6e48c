"""One worker's parameters as flat buffers, their correction, and the locks between the training thread and the engine.

The correction is what mixing adds to the parameters. Only the engine adds to it; only the training thread, at its safe
point, applies and clears it. A chunk's lock is held for one copy, one addition or one apply-and-clear, never across
communication, so the training thread never waits for a peer.

Owners: `x` belongs to the training thread (the engine reads it, possibly torn: see DESIGN's invariant of mass);
`correction` and `pending` are guarded by the chunk's lock; `source` changes only while the algorithm is paused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hvd_gossip.buffers.arrays import (
    Array,
    add_difference,
    add_into,
    add_scaled,
    finite_difference_of,
    is_floating,
    module_of,
    scale,
    squared_distance,
    to_host,
    wire_dtype,
)
from hvd_gossip.buffers.space import HostSpace, Space

CHUNK_BYTES = 1 << 20


class Chunk:
    """A piece of a flat buffer: views, and the lock that guards them.

    Attributes:
        index: position among the replica's chunks.
        capacity: elements of the largest chunk of its flat buffer: exchange buffers have this length.
        x: parameters as the framework sees them, 1-D.
        source: what the engine reads as this worker's parameters: `x`, or the copy kept while `x` holds a mean.
        correction: same length and dtype as `x`.
        pending: whether the correction may differ from zero; if not, it is zero.
    """

    __slots__ = ("capacity", "correction", "fences", "index", "lock", "pending", "source", "space", "x")

    def __init__(self, index: int, capacity: int, x: Array, correction: Array, space: Space) -> None:
        self.index = index
        self.capacity = capacity
        self.x = x
        self.source = x
        self.correction = correction
        self.pending = False
        self.space = space
        self.lock = threading.Lock()
        self.fences: dict[str, Any] = {}

    def snapshot(self, wire: Array) -> None:
        """Engine: wire <- source + correction."""
        with self.space.engine(self):
            if not self.pending:
                self.space.publish(self.source, wire)
            elif wire.dtype == self.x.dtype and isinstance(wire, type(self.x)):
                add_into(wire, self.source, self.correction)
            else:
                total = self.source.copy()
                add_into(total, self.source, self.correction)
                self.space.publish(total, wire)

    def correct(self, weight: float, theirs: Array, mine: Array) -> None:
        """Engine: correction += weight * (theirs - mine). `theirs` may be used as scratch."""
        with self.space.engine(self):
            add_difference(self.correction, weight, theirs, mine)
            self.pending = True

    def average(self, weight: float, theirs: Array, mine: Array) -> bool:
        """Engine: as `correct`, unless a value of either is not finite. Both ends of an edge come to the same answer, since the
        difference is the same but for its sign.

        Returns:
            Whether the correction was made.
        """
        difference = finite_difference_of(theirs, mine, self.x.dtype)
        if difference is None:
            return False
        with self.space.engine(self):
            if self.pending or self.correction.dtype != difference.dtype:
                difference *= weight
                add_into(self.correction, self.correction, difference)
            else:  # it is zero: its memory is only written
                module_of(difference).multiply(difference, weight, out=self.correction)
            self.pending = True
        return True


class Companion:
    """Arrays laid out as a replica's parameters: what an algorithm remembers of each of them. Made by `Replica.companion`.

    Owner: the algorithm, which says which thread writes them when.

    Attributes:
        flats: one a flat buffer, of its length and dtype.
        chunks: one a chunk of the replica, in order: views of the flats.
    """

    def __init__(self, replica: Replica) -> None:
        self._space = replica.space
        self.flats = [replica.space.zeros(flat.size, flat.dtype) for flat in replica.flats]
        self.chunks: list[Array] = []
        sizes = iter(chunk.x.size for chunk in replica.chunks)
        for flat in self.flats:
            start = 0
            while start < flat.size:
                size = next(sizes)
                self.chunks.append(flat[start : start + size])
                start += size

    def copy_from(self, flats: Sequence[Array]) -> None:
        """Takes the values of arrays laid out alike, such as `Replica.flats`."""
        for own, other in zip(self.flats, flats, strict=True):
            own[...] = other

    def state(self) -> list[np.ndarray]:
        """The flats as NumPy arrays, copies, for `state_dict()`."""
        return [to_host(flat) for flat in self.flats]

    def load(self, state: Sequence[np.ndarray], what: str) -> None:
        """Restores `state()`'s value.

        Args:
            what: it is called in messages.

        Raises:
            ValueError: it does not fit this replica's layout.
        """
        wanted, given = [flat.shape for flat in self.flats], [np.shape(array) for array in state]
        if wanted != given:
            raise ValueError(f"{what} of shapes {given} do not fit parameters of shapes {wanted}")
        for own, array in zip(self.flats, state, strict=True):
            own[...] = module_of(own).asarray(array)


class Replica:
    """The flat buffers of one worker.

    Args:
        flats: 1-D contiguous arrays, one a dtype and device, that the framework's tensors are views of; the same lengths
            and dtypes in the same order on every rank.
        chunk_bytes: upper bound of a chunk's size, bytes.
        space: where they live; HostSpace for NumPy arrays.

    Attributes:
        applied: grows whenever a step changes the parameters by something else than the update: a chunk's correction was
            applied, or an algorithm of its own added to them. Owner: the training thread.

    Raises:
        ValueError: an array is not 1-D, contiguous and floating.
    """

    def __init__(self, flats: Sequence[Array], chunk_bytes: int = CHUNK_BYTES, space: Space | None = None) -> None:
        self.flats = list(flats)
        self.space: Space = space or HostSpace()
        for number, flat in enumerate(self.flats):
            _check_flat(number, flat)
        self.corrections = [self.space.zeros(flat.size, flat.dtype) for flat in self.flats]
        self.chunks: list[Chunk] = []
        for flat, correction in zip(self.flats, self.corrections, strict=True):
            self._cut(flat, correction, chunk_bytes)
        self._own: list[Array] | None = None
        self.applied = 0

    def _cut(self, flat: Array, correction: Array, chunk_bytes: int) -> None:
        length = min(max(1, chunk_bytes // flat.dtype.itemsize), max(1, flat.size))
        for start in range(0, flat.size, length):
            part = slice(start, start + length)
            self.chunks.append(Chunk(len(self.chunks), length, flat[part], correction[part], self.space))

    @property
    def nbytes(self) -> int:
        """Bytes of parameters."""
        return sum(int(flat.nbytes) for flat in self.flats)

    def companion(self) -> Companion:
        """New arrays beside the parameters, zero: as much memory as the parameters take."""
        return Companion(self)

    def wire_type(self, chunk: Chunk, setting: str) -> np.dtype[Any]:
        """The type in which the chunk travels under the setting `wire_dtype`."""
        return wire_dtype(setting, chunk.x.dtype)

    def fold(self) -> None:
        """Training thread: x += correction; correction = 0."""
        for chunk in self.chunks:
            with self.space.training(chunk):
                if chunk.pending:
                    add_into(chunk.x, chunk.x, chunk.correction)
                    chunk.correction.fill(0)
                    chunk.pending = False
                    self.applied += 1

    def prepare(self, weights: Iterable[float]) -> None:
        """Training thread: correction += (w - 1) * x, chunk by chunk, so that `finish` divides all by w.

        With `finish` after an update u: x <- (x + u + correction + (w - 1) x) / w = x + (u + correction) / w.
        """
        for chunk, weight in zip(self.chunks, map(float, weights), strict=True):
            if weight != 1.0:
                with self.space.training(chunk):
                    add_scaled(chunk.correction, weight - 1.0, chunk.x)
                    chunk.pending = True

    def finish(self, weights: Iterable[float]) -> None:
        """Training thread: x <- (x + correction) / w; correction = 0. See `prepare`."""
        self.fold()
        for chunk, weight in zip(self.chunks, map(float, weights), strict=True):
            if weight != 1.0:
                with self.space.training(chunk):
                    scale(chunk.x, 1.0 / weight)

    def hold(self) -> None:
        """Keeps a copy of the parameters, which the engine reads from now on; `x` may then hold something else.

        Only while the algorithm is paused. What the correction holds stays there.
        """
        self._own = [flat.copy() for flat in self.flats]
        self._read_from(self._own)

    def preview(self, weights: Iterable[float]) -> None:
        """Training thread, while held: x += correction / w, chunk by chunk; the correction stays as it is."""
        for chunk, weight in zip(self.chunks, map(float, weights), strict=True):
            with self.space.training(chunk):
                if chunk.pending:
                    add_scaled(chunk.x, 1.0 / weight, chunk.correction)

    def release(self) -> None:
        """Ends `hold`: the parameters have their own values again."""
        if self._own is None:
            raise RuntimeError("release() without hold()")
        for flat, own in zip(self.flats, self._own, strict=True):
            flat[...] = own
        self._read_from(self.flats)
        self._own = None

    def held_distance(self) -> float:
        """Squared L2 distance between the held parameters and what `x` holds now."""
        return sum(squared_distance(chunk.source, chunk.x) for chunk in self.chunks)

    def _read_from(self, flats: Sequence[Array]) -> None:
        position = iter(self.chunks)
        for flat in flats:
            start = 0
            while start < flat.size:
                chunk = next(position)
                chunk.source = flat[start : start + chunk.x.size]
                start += chunk.x.size


def _check_flat(number: int, flat: Array) -> None:
    if flat.ndim != 1 or not flat.flags.c_contiguous or not is_floating(flat.dtype):
        raise ValueError(
            f"flat buffer {number} must be 1-D, contiguous and of a floating type, not {flat.dtype} of shape {flat.shape}"
        )
