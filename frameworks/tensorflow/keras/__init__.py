"""hvd-gossip for Keras 3 on TensorFlow: Horovod's documented API, with gossip algorithms behind one setting.

    import hvd_gossip.tensorflow.keras as hvd    # was: import horovod.tensorflow.keras as hvd, or horovod.keras

This file is the public API.
"""

import keras as _keras

if _keras.config.backend() != "tensorflow":
    raise ImportError(
        f"hvd_gossip.tensorflow.keras needs Keras's TensorFlow backend, not {_keras.config.backend()!r}: set "
        "KERAS_BACKEND=tensorflow"
    )

from hvd_gossip.tensorflow.compression import Compression as Compression
from hvd_gossip.tensorflow.functions import broadcast_global_variables as broadcast_global_variables
from hvd_gossip.tensorflow.keras import hooks as _hooks
from hvd_gossip.tensorflow.keras.optimizer import DistributedOptimizer as DistributedOptimizer
from hvd_gossip.tensorflow.keras.optimizer import PartialDistributedOptimizer as PartialDistributedOptimizer

_hooks.install()
