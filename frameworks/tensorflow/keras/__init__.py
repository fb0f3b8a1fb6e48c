"""hvd-gossip for Keras 3 on TensorFlow: Horovod's documented API, with gossip algorithms behind one setting.

    import hvd_gossip.tensorflow.keras as hvd    # was: import horovod.tensorflow.keras as hvd, or horovod.keras

This file is the public API.
"""

import importlib.util

if importlib.util.find_spec("keras") is None:
    raise ImportError("hvd_gossip.tensorflow.keras needs Keras 3: pip install 'hvd-gossip[tensorflow]'")

from hvd_gossip.tensorflow.compression import Compression as Compression
from hvd_gossip.tensorflow.full_norm import FullNormalization as FullNormalization
from hvd_gossip.tensorflow.full_norm import convert_full_normalization as convert_full_normalization
from hvd_gossip.tensorflow.functions import allgather_object as allgather_object
from hvd_gossip.tensorflow.functions import broadcast_global_variables as broadcast_global_variables
from hvd_gossip.tensorflow.functions import broadcast_object as broadcast_object
from hvd_gossip.tensorflow.functions import broadcast_variables as broadcast_variables
from hvd_gossip.tensorflow.keras import backend as _backend  # first: Keras 3 on TensorFlow, or an error  # noqa: F401
from hvd_gossip.tensorflow.keras import callbacks as callbacks
from hvd_gossip.tensorflow.keras import elastic as elastic
from hvd_gossip.tensorflow.keras import hooks as _hooks  # noqa: F401
from hvd_gossip.tensorflow.keras.accum_adam import AccumAdam as AccumAdam
from hvd_gossip.tensorflow.keras.accum_adam import AccumAdamW as AccumAdamW
from hvd_gossip.tensorflow.keras.optimizer import DistributedOptimizer as DistributedOptimizer
from hvd_gossip.tensorflow.keras.optimizer import PartialDistributedOptimizer as PartialDistributedOptimizer
from hvd_gossip.tensorflow.keras.saved import load_model as load_model
from hvd_gossip.tensorflow.keras.values import allgather as allgather
from hvd_gossip.tensorflow.keras.values import allreduce as allreduce
from hvd_gossip.tensorflow.keras.values import broadcast as broadcast
from hvd_gossip.tensorflow.keras.values import reducescatter as reducescatter
from hvd_gossip.tensorflow.model_mean import consensus as consensus
from hvd_gossip.tensorflow.model_mean import consensus_distance as consensus_distance
from hvd_gossip.tensorflow.mpi_ops import Adasum as Adasum
from hvd_gossip.tensorflow.mpi_ops import Average as Average
from hvd_gossip.tensorflow.mpi_ops import Max as Max
from hvd_gossip.tensorflow.mpi_ops import Min as Min
from hvd_gossip.tensorflow.mpi_ops import ProcessSet as ProcessSet
from hvd_gossip.tensorflow.mpi_ops import Product as Product
from hvd_gossip.tensorflow.mpi_ops import Sum as Sum
from hvd_gossip.tensorflow.mpi_ops import add_process_set as add_process_set
from hvd_gossip.tensorflow.mpi_ops import barrier as barrier
from hvd_gossip.tensorflow.mpi_ops import ccl_built as ccl_built
from hvd_gossip.tensorflow.mpi_ops import cross_rank as cross_rank
from hvd_gossip.tensorflow.mpi_ops import cross_size as cross_size
from hvd_gossip.tensorflow.mpi_ops import cuda_built as cuda_built
from hvd_gossip.tensorflow.mpi_ops import ddl_built as ddl_built
from hvd_gossip.tensorflow.mpi_ops import global_process_set as global_process_set
from hvd_gossip.tensorflow.mpi_ops import gloo_built as gloo_built
from hvd_gossip.tensorflow.mpi_ops import gloo_enabled as gloo_enabled
from hvd_gossip.tensorflow.mpi_ops import init as init
from hvd_gossip.tensorflow.mpi_ops import is_homogeneous as is_homogeneous
from hvd_gossip.tensorflow.mpi_ops import is_initialized as is_initialized
from hvd_gossip.tensorflow.mpi_ops import join as join
from hvd_gossip.tensorflow.mpi_ops import local_rank as local_rank
from hvd_gossip.tensorflow.mpi_ops import local_size as local_size
from hvd_gossip.tensorflow.mpi_ops import mpi_built as mpi_built
from hvd_gossip.tensorflow.mpi_ops import mpi_enabled as mpi_enabled
from hvd_gossip.tensorflow.mpi_ops import mpi_threads_supported as mpi_threads_supported
from hvd_gossip.tensorflow.mpi_ops import nccl_built as nccl_built
from hvd_gossip.tensorflow.mpi_ops import rank as rank
from hvd_gossip.tensorflow.mpi_ops import remove_process_set as remove_process_set
from hvd_gossip.tensorflow.mpi_ops import rocm_built as rocm_built
from hvd_gossip.tensorflow.mpi_ops import shutdown as shutdown
from hvd_gossip.tensorflow.mpi_ops import size as size
from hvd_gossip.tensorflow.mpi_ops import start_timeline as start_timeline
from hvd_gossip.tensorflow.mpi_ops import stop_timeline as stop_timeline
from hvd_gossip.tensorflow.sharing import work_shared as work_shared
