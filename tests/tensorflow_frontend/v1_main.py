"""In a rank: a script of TensorFlow 1 as it was, with TensorFlow 2's behaviour turned off. Reports what it has learned."""

from __future__ import annotations

import hvd_gossip.tensorflow as hvd
import numpy as np
import tensorflow.compat.v1 as tf

from tests.mpi import report


def main() -> None:
    tf.disable_v2_behavior()
    hvd.init()
    features = tf.placeholder(tf.float32, [None, 3])
    weight = tf.get_variable("weight", [3, 1], initializer=tf.random_normal_initializer())
    loss = tf.reduce_mean((tf.matmul(features, weight) - 1.0) ** 2)
    table = tf.get_variable("table", [4, 2], initializer=tf.ones_initializer())
    loss += tf.reduce_sum(tf.nn.embedding_lookup(table, [hvd.rank() % 4]) ** 2)
    count = tf.train.get_or_create_global_step()
    optimizer = hvd.DistributedOptimizer(tf.train.MomentumOptimizer(0.05, 0.9), backward_passes_per_step=1)
    train = optimizer.minimize(loss, global_step=count)
    delta = hvd.DistributedOptimizer(
        tf.train.GradientDescentOptimizer(0.01), backward_passes_per_step=2, sparse_as_dense=True
    )
    accumulate = delta.minimize(loss)
    average = hvd.allreduce(loss, name="loss")
    hooks = [hvd.BroadcastGlobalVariablesHook(0), tf.train.StopAtStepHook(last_step=20)]
    batches = np.random.default_rng(hvd.rank())
    with tf.train.MonitoredTrainingSession(hooks=hooks) as session:
        while not session.should_stop():
            batch = batches.normal(size=(8, 3))
            session.run(accumulate, {features: batch})
            values = session.run([weight, table, count], {features: batch})
            session.run([train, average], {features: batch})
    report([value.tolist() for value in values])
    hvd.shutdown()


if __name__ == "__main__":
    main()
