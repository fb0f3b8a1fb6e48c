"""Who takes part: ranks and the hosts they are on; and whether all that were started do."""

from hvd_gossip.world.surroundings import refuse_gloo as refuse_gloo
from hvd_gossip.world.world import World as World
from hvd_gossip.world.world import discover as discover
