"""The end of an epoch whose workers have different numbers of batches (Horovod's join), for every algorithm.

Who has no data left rests: its neighbours go on without it, and the collectives ask nothing of it, until the last worker has
joined. Then all go on together, counting from a phase that is new to everybody: the workers that rested have missed exact
averages that the others took.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hvd_gossip.algorithms.base import Algorithm
from hvd_gossip.collectives import Collectives, Max, Request, Result
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.endpoint import Endpoint

NAME = "join"


async def join(endpoint: Endpoint, collectives: Collectives, algorithms: Sequence[Algorithm]) -> Result:
    """Engine: rests until all live ranks have joined, and goes on. A collective.

    Args:
        endpoint: runs what goes on side by side.
        collectives: of all ranks.
        algorithms: this rank's, all of them; ranks may have different ones.

    Returns:
        Who joined (all live ranks), and who did last.

    Raises:
        HorovodInternalError: the collectives failed; the algorithms rest for good.
    """
    await all_of([endpoint.spawn(algorithm.rest(), ("resting", algorithm.name)) for algorithm in algorithms])
    result = await collectives.submit(Request(name=NAME, kind="join"))
    phase = np.array([max((algorithm.phase for algorithm in algorithms), default=0)], np.int64)
    # live_only: a rank may shut down as soon as it has joined.
    await collectives.submit(Request(f"{NAME}.phase", "allreduce", phase, Max, output=phase, live_only=True))
    for algorithm in algorithms:
        await algorithm.resume(int(phase[0]) + 1)
    return result
