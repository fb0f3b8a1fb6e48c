"""Work sharing for tf.data."""

from __future__ import annotations

from typing import Any

import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tensorflow_frontend.keras.models import GOSSIP, initial, make_model


class Counted(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts steps. (Keras's own `iterations` counts the attempt to read past the end as well.)"""

    steps = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1


def everybodys_of(dataset: Any) -> list[Any]:
    """One iteration: what each worker got, as lists of numbers."""
    return hvd.allgather_object([np.asarray(one).tolist() for one in dataset.as_numpy_iterator()])


def check_each_element_once_an_epoch() -> None:
    dataset = hvd.work_shared(tf.data.Dataset.range(23).map(lambda n: 2 * n))
    orders = []
    for _ in range(2):
        parts = everybodys_of(dataset)
        orders.append(parts)
        assert sorted(number for part in parts for number in part) == list(range(0, 46, 2))
    if hvd.size() == 1:
        assert orders[0] != orders[1]


def check_batches_are_full_with_blocks_of_their_size() -> None:
    parts = everybodys_of(hvd.work_shared(20, shuffle=False, block=4).batch(4))
    assert sorted(batch for part in parts for batch in part) == [list(range(n, n + 4)) for n in range(0, 20, 4)]
    parts = everybodys_of(hvd.work_shared(22, block=4, drop_last=True).batch(4))
    assert all(len(batch) == 4 for part in parts for batch in part)


def check_pairs_stay_together() -> None:
    data = tf.data.Dataset.from_tensor_slices((np.arange(9), np.arange(9) * 10))
    got = hvd.allgather_object([(int(a), int(b)) for a, b in hvd.work_shared(data).as_numpy_iterator()])
    assert sorted(pair for part in got for pair in part) == [(n, 10 * n) for n in range(9)]


def check_unequal_numbers_of_steps_with_every_algorithm() -> None:
    """horovod#3888, #118: workers with different numbers of batches."""
    inputs, targets = np.ones((40, 4), np.float32), np.ones((40, 3), np.float32)
    for algorithm in GOSSIP:
        data = hvd.work_shared(tf.data.Dataset.from_tensor_slices((inputs, targets)), block=4).batch(4)
        optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(0.1), algorithm=algorithm)
        model = make_model(initial(0))
        model.compile(optimizer=optimizer, loss="mse")
        counted = Counted()
        for epoch in range(2):
            with pytest.warns(UserWarning, match="ran out of data"):  # Keras's, wherever a length is not known
                model.fit(data, initial_epoch=epoch, epochs=epoch + 1, verbose=0, shuffle=False, callbacks=[counted])
            hvd.join()
        steps = hvd.allgather_object(counted.steps)
        assert sum(steps) == 20, (algorithm, steps)
        with hvd.consensus(model):
            assert np.isfinite(model.get_weights()[0]).all()


def check_what_cannot_be_shared_is_refused() -> None:
    endless = tf.data.Dataset.range(3).repeat()
    streamed = tf.data.Dataset.range(3).interleave(lambda n: tf.data.Dataset.range(2), num_parallel_calls=None)
    for dataset, message in (
        (endless, "not known, or infinite"),
        (streamed.apply(tf.data.experimental.assert_cardinality(6)), "one after the other"),
        (object(), "a length"),
    ):
        with pytest.raises(TypeError, match=message):
            hvd.work_shared(dataset)
    with pytest.raises(ValueError, match="block"):
        hvd.work_shared(3, block=0)
