"""Who takes part: ranks and the hosts they are on."""

from hvd_gossip.world.world import World as World
from hvd_gossip.world.world import discover as discover
