"""A sampler for data loaders that hands out an epoch's samples as workers ask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from hvd_gossip.sharing.epochs import SharedEpochs


class WorkSharingSampler(SharedEpochs, Sampler[int]):
    """In place of `DistributedSampler`: the workers share each epoch's samples, and a fast worker takes more of them.

    Over all workers each sample is handed out exactly once an epoch: nothing is padded or repeated. An epoch ends for
    a worker when no sample is left anywhere, so a worker that is 10,000 times slower than the others holds them up by
    nothing; it keeps the batch in its hands, and what its DataLoader has prefetched (`num_workers * prefetch_factor`
    batches: keep that small where workers differ much in speed). How many samples a worker gets depends on its speed
    and differs from run to run; the order of the whole epoch, of which each worker gets pieces, does not.

    Every rank constructs the sampler alike, after `init()`, and iterates over it equally often. With one process it
    is a RandomSampler. Works in DataLoader (with any `num_workers`) and in BatchSampler:

        sampler = hvd.WorkSharingSampler(dataset)
        loader = DataLoader(dataset, batch_size=32, sampler=sampler)
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            for batch in loader: ...

    Leaving the loop early leaves the rest of the epoch to the other workers. A departing rank's share passes on to
    another; that of a process that dies is lost.

    Args:
        data_source: the data set, or its length.
        shuffle: permute the samples, every epoch anew, as DistributedSampler does: by torch's generator with seed
            `seed + epoch`. Otherwise they are handed out in order, each worker starting at its own part.
        seed: equal on all ranks.
        block: samples that are handed out together, as neighbours in the epoch's order. With the batch size here all
            batches but one in the whole epoch are full; with 1 each worker's last batch may be short (and is lost if the
            DataLoader has `drop_last`).
        drop_last: leave out the last `len % block` samples of the epoch's order.
        name: tells samplers apart; equal on all ranks. By default they are numbered in the order of construction.

    Attributes:
        epoch: the epoch that the next iteration goes through.

    Raises:
        NotInitializedError: `init()` was not called.
        TypeError: `data_source` is neither a number nor has a length.
        ValueError: a negative length, or `block` below 1.
    """

    def permutation(self) -> npt.NDArray[np.int64]:
        """The order of a shuffled epoch: DistributedSampler's."""
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        order: npt.NDArray[np.int64] = torch.randperm(self.length, generator=generator, device="cpu").numpy()
        return order
