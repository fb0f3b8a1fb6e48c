"""Work sharing for tf.data: an epoch's elements handed out as workers ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, SupportsIndex

import tensorflow as tf

from hvd_gossip.sharing.epochs import SharedEpochs


def work_shared(
    dataset: Any,
    shuffle: bool = True,
    seed: int = 0,
    block: int = 1,
    drop_last: bool = False,
    *,
    name: str | None = None,
) -> Any:
    """In place of `dataset.shard(hvd.size(), hvd.rank())`: the workers share each epoch's elements, and a fast worker takes more
    of them. (Not in Horovod.)

    Over all workers each element is handed out exactly once an epoch: nothing is padded or repeated. An epoch ends for a worker
    when no element is left anywhere. How many elements a worker gets differs from run to run; the order of the whole epoch,
    of which each worker gets pieces, does not. Each iteration is an epoch: every rank iterates equally often.

        data = hvd.work_shared(tf.data.Dataset.from_tensor_slices((images, labels)), block=32).batch(32)
        for epoch in range(epochs):
            model.fit(data, initial_epoch=epoch, epochs=epoch + 1)

    One epoch a `fit`, as here: in one `fit` of several epochs Keras lets a worker have no more batches in a later epoch than it
    had in the first, and the rest of an epoch would be left to nobody. What is prefetched is kept by a worker: prefetch little.

    Args:
        dataset: of single elements, before `batch`, that can be read in any order (`tf.data.experimental.at`):
            `from_tensor_slices`, `range`, and `map` or `cache` of these. Or their number: then the result holds their indices,
            int64.
        shuffle: permute the elements, every epoch anew. Otherwise they are handed out in order.
        seed: equal on all ranks.
        block: elements that are handed out together; with the batch size here all batches but one in the epoch are full.
        drop_last: leave out the last `len % block` elements of the epoch's order.
        name: tells shared data apart; equal on all ranks. By default they are numbered in the order of construction.

    Returns:
        A tf.data.Dataset of unknown length.

    Raises:
        NotInitializedError: before `init()`. TypeError: neither such a dataset nor a number. ValueError: a negative number, or
            `block` below 1. While iterating, as a tf.errors.OpError: the ranks' data differ, or a rank does not answer.
    """
    given = isinstance(dataset, tf.data.Dataset)
    epochs = SharedEpochs(_length_of(dataset) if given else dataset, shuffle, seed, block, drop_last, name=name)
    following = iter(range(1 << 62))

    def indices() -> Iterator[int]:
        epochs.set_epoch(next(following))
        yield from epochs

    numbers = tf.data.Dataset.from_generator(indices, output_signature=tf.TensorSpec([], tf.int64))
    return numbers.map(lambda index: tf.data.experimental.at(dataset, index)) if given else numbers


def _length_of(dataset: Any) -> SupportsIndex:
    length = int(dataset.cardinality())
    if length < 0:
        raise TypeError("the length of this dataset is not known, or infinite: its elements cannot be shared out")
    try:
        if length:
            tf.data.experimental.at(dataset, 0)
    except tf.errors.UnimplementedError as error:
        raise TypeError(
            "the elements of this dataset can be read one after the other only, and so cannot be shared out: share the "
            "indices instead, hvd.work_shared(number).map(...), or begin with tf.data.Dataset.from_tensor_slices"
        ) from error
    return length
