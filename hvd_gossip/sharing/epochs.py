"""An epoch's samples, handed out as workers ask: what every framework's way of reading data builds on."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from hvd_gossip import runtime
from hvd_gossip.sharing import PoolReader, PoolSpec

_unnamed = itertools.count()


class SharedEpochs:
    """The indices of this worker's samples of an epoch, when iterated over. Over all workers each comes exactly once an epoch.

    Every rank constructs it alike, after `init()`, and iterates over it equally often. A worker that stops iterating leaves
    the rest to the others.

    Args:
        data_source: the data set, or its length.
        shuffle: permute the samples, every epoch anew. Otherwise they are handed out in order, each worker starting at its
            own part.
        seed: equal on all ranks.
        block: samples that are handed out together, as neighbours in the epoch's order.
        drop_last: leave out the last `len % block` samples of the epoch's order.
        name: tells instances apart; equal on all ranks. By default they are numbered in the order of construction.

    Attributes:
        epoch: the epoch that the next iteration goes through.

    Raises:
        NotInitializedError: `init()` was not called.
        TypeError: `data_source` is neither a number nor has a length.
        ValueError: a negative length, or `block` below 1.
    """

    def __init__(
        self,
        data_source: Sized | SupportsIndex,
        shuffle: bool = True,
        seed: int = 0,
        block: int = 1,
        drop_last: bool = False,
        *,
        name: str | None = None,
    ) -> None:
        self._size = runtime.current().sharing.size
        self.length = _length_of(data_source)
        if block < 1:
            raise ValueError(f"block must be at least 1 sample, not {block}")
        self.shuffle = shuffle
        self.seed = seed
        self.block = block
        self.drop_last = drop_last
        self.name = f"sampler.{next(_unnamed)}" if name is None else name
        self.epoch = 0
        self._under_way = 0

    def __iter__(self) -> Iterator[int]:
        """This worker's samples of the epoch, as indices.

        Raises:
            HorovodInternalError: the ranks' samplers differ. WaitTimeoutError: another rank does not answer.
        """
        order = self._order()
        with self._reader() as reader:
            for unit in reader:
                yield from order[unit * self.block : (unit + 1) * self.block].tolist()

    def __len__(self) -> int:
        """Samples that this worker would get if all were equally fast, rounded up; it may get fewer, or all."""
        return -(-self._samples // self._size)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration. Call it on every rank, before each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes: the epoch, and what must not change.

        Raises:
            RuntimeError: an epoch is under way. No worker knows which samples the others have had by now, nor which
                ones its data loader has prefetched and not yet used; save between two epochs.
        """
        if self._under_way:
            raise RuntimeError(
                f"the state of {self.name!r} cannot be saved in the middle of epoch {self.epoch}: its samples are being "
                "shared out between the workers, and none of them knows which ones are left; save between two epochs"
            )
        return {"epoch": self.epoch, **self._settings()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the saved epoch, from its beginning; `set_epoch` may choose another.

        Raises:
            ValueError: the state is of a sampler with other data or settings; the message says which.
        """
        mine = self._settings()
        differing = {key: (state.get(key), value) for key, value in mine.items() if state.get(key) != value}
        if differing:
            text = ", ".join(f"{key} was {saved!r}, is {value!r}" for key, (saved, value) in differing.items())
            raise ValueError(f"the saved state is of another sampler than {self.name!r}: {text}")
        self.set_epoch(int(state["epoch"]))

    @property
    def _samples(self) -> int:
        return self.length - self.length % self.block if self.drop_last else self.length

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("length", "shuffle", "seed", "block", "drop_last")}

    def permutation(self) -> npt.NDArray[np.int64]:
        """The order of a shuffled epoch, of all samples; the same on every rank."""
        return np.random.default_rng((self.seed, self.epoch)).permutation(self.length)

    def _order(self) -> npt.NDArray[np.int64]:
        """The whole epoch's order, the same on every rank."""
        return self.permutation()[: self._samples] if self.shuffle else np.arange(self._samples)

    @contextmanager
    def _reader(self) -> Iterator[PoolReader]:
        now = runtime.current()
        spec = PoolSpec(-(-self._samples // self.block), f"samples ({self._settings()})")
        key = now.sharing.new_key(self.name, self.epoch)
        self._under_way += 1
        try:
            with PoolReader(now.sharing, now.engine.submit, key, spec) as reader:
                yield reader
        finally:
            self._under_way -= 1


def _length_of(data_source: Sized | SupportsIndex) -> int:
    try:
        length = len(data_source) if isinstance(data_source, Sized) else operator.index(data_source)
    except TypeError:
        raise TypeError(
            f"a data set with a length, or a length, is needed to share its samples, not {type(data_source).__name__}; "
            "an iterable data set decides itself what each worker reads"
        ) from None
    if length < 0:
        raise ValueError(f"a data set has at least 0 samples, not {length}")
    return length
