"""Elastic training with TensorFlow: Horovod's `horovod.tensorflow.elastic`.

@hvd.elastic.run
def train(state):
    for state.batch in range(state.batch, batches):
        train_one_batch()
        if state.batch % 100 == 0:
            state.commit()

state = hvd.elastic.TensorFlowKerasState(model, optimizer, batch=0)
train(state)
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from hvd_gossip.basics import restart
from hvd_gossip.elastic import ObjectState as ObjectState
from hvd_gossip.elastic import State as State
from hvd_gossip.elastic import run_fn
from hvd_gossip.errors import HorovodInternalError

from ..crossing import take_failure
from .state import TensorFlowKerasState as TensorFlowKerasState
from .state import TensorFlowState as TensorFlowState


def run(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a training function whose first argument is a `State`: see `hvd_gossip.elastic.run_fn`.

    `init()` comes before; everything that communicates comes inside the function. A failure shuts down and initializes
    anew, in the same processes. A failure inside a graph, which TensorFlow reports as one of its own errors, counts as well.
    """

    @functools.wraps(func)
    def train(state: State, *args: Any, **kwargs: Any) -> Any:
        take_failure()  # of before
        try:
            return func(state, *args, **kwargs)
        except tf.errors.OpError as error:
            failure = take_failure()
            if isinstance(failure, HorovodInternalError):
                raise failure from error
            raise

    return run_fn(train, restart)
