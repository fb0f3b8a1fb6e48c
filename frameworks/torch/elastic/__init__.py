"""Elastic training with PyTorch: Horovod's `horovod.torch.elastic`.

@hvd.elastic.run
def train(state):
    for state.epoch in range(state.epoch, epochs):
        for batch, (data, target) in enumerate(loader):
            ...
            state.sampler.record_batch(batch, batch_size)
        state.sampler.set_epoch(state.epoch + 1)
        state.commit()

state = hvd.elastic.TorchState(model, optimizer, sampler=sampler, epoch=0)
train(state)
"""

from collections.abc import Callable
from typing import Any

from hvd_gossip.basics import restart
from hvd_gossip.elastic import ObjectState as ObjectState
from hvd_gossip.elastic import State as State
from hvd_gossip.elastic import run_fn

from .sampler import ElasticSampler as ElasticSampler
from .state import TorchState as TorchState


def run(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a training function whose first argument is a `State`: see `hvd_gossip.elastic.run_fn`.

    `init()` comes before; everything that communicates comes inside the function. A failure shuts down and initializes
    anew, in the same processes.
    """
    return run_fn(func, restart)
