"""`hvd_gossip.keras` is `hvd_gossip.tensorflow.keras`, as `horovod.keras` is `horovod.tensorflow.keras`: the same modules."""

import importlib
import sys

_OURS = "hvd_gossip.tensorflow.keras"

sys.modules.update(
    {f"{__name__}.{part}": importlib.import_module(f"{_OURS}.{part}") for part in ("callbacks", "elastic")}
)
sys.modules[__name__] = importlib.import_module(_OURS)
