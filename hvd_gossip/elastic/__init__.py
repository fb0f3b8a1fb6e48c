"""Training that survives failures of collectives and changes of the set of workers (Horovod's elastic mode).

What no framework is needed for. `hvd_gossip.torch.elastic` holds what scripts use, and the compat package serves this one as
`horovod.common.elastic`.
"""

from hvd_gossip.elastic.notifications import HostUpdateResult as HostUpdateResult
from hvd_gossip.elastic.notifications import NotificationManager as NotificationManager
from hvd_gossip.elastic.notifications import notification_manager as notification_manager
from hvd_gossip.elastic.run import run_fn as run_fn
from hvd_gossip.elastic.state import ObjectState as ObjectState
from hvd_gossip.elastic.state import State as State
