"""hvd-gossip for TensorFlow: Horovod's documented API, with gossip algorithms behind one setting.

    import hvd_gossip.tensorflow as hvd    # was: import horovod.tensorflow as hvd

Eager execution, `tf.function` and graphs of tf.compat.v1. For Keras 3 see `hvd_gossip.tensorflow.keras`.

This file is the public API.
"""

import importlib.util

if importlib.util.find_spec("tensorflow") is None:
    raise ImportError(
        "hvd_gossip.tensorflow needs TensorFlow: pip install 'hvd-gossip[tensorflow]' "
        "(with PyTorch: import hvd_gossip.torch as hvd)"
    )

from hvd_gossip.tensorflow import elastic as elastic
from hvd_gossip.tensorflow import mpi_ops as mpi_ops
from hvd_gossip.tensorflow.compression import Compression as Compression
from hvd_gossip.tensorflow.full_norm import FullNormalization as FullNormalization
from hvd_gossip.tensorflow.full_norm import convert_full_normalization as convert_full_normalization
from hvd_gossip.tensorflow.functions import BroadcastGlobalVariablesHook as BroadcastGlobalVariablesHook
from hvd_gossip.tensorflow.functions import allgather_object as allgather_object
from hvd_gossip.tensorflow.functions import broadcast_global_variables as broadcast_global_variables
from hvd_gossip.tensorflow.functions import broadcast_object as broadcast_object
from hvd_gossip.tensorflow.functions import broadcast_object_fn as broadcast_object_fn
from hvd_gossip.tensorflow.functions import broadcast_variables as broadcast_variables
from hvd_gossip.tensorflow.model_mean import consensus as consensus
from hvd_gossip.tensorflow.model_mean import consensus_distance as consensus_distance
from hvd_gossip.tensorflow.mpi_ops import Adasum as Adasum
from hvd_gossip.tensorflow.mpi_ops import Average as Average
from hvd_gossip.tensorflow.mpi_ops import HorovodInternalError as HorovodInternalError
from hvd_gossip.tensorflow.mpi_ops import Max as Max
from hvd_gossip.tensorflow.mpi_ops import Min as Min
from hvd_gossip.tensorflow.mpi_ops import ProcessSet as ProcessSet
from hvd_gossip.tensorflow.mpi_ops import Product as Product
from hvd_gossip.tensorflow.mpi_ops import Sum as Sum
from hvd_gossip.tensorflow.mpi_ops import add_process_set as add_process_set
from hvd_gossip.tensorflow.mpi_ops import allgather as allgather
from hvd_gossip.tensorflow.mpi_ops import allreduce as allreduce
from hvd_gossip.tensorflow.mpi_ops import alltoall as alltoall
from hvd_gossip.tensorflow.mpi_ops import barrier as barrier
from hvd_gossip.tensorflow.mpi_ops import broadcast as broadcast
from hvd_gossip.tensorflow.mpi_ops import broadcast_ as broadcast_
from hvd_gossip.tensorflow.mpi_ops import ccl_built as ccl_built
from hvd_gossip.tensorflow.mpi_ops import cross_rank as cross_rank
from hvd_gossip.tensorflow.mpi_ops import cross_size as cross_size
from hvd_gossip.tensorflow.mpi_ops import cuda_built as cuda_built
from hvd_gossip.tensorflow.mpi_ops import ddl_built as ddl_built
from hvd_gossip.tensorflow.mpi_ops import global_process_set as global_process_set
from hvd_gossip.tensorflow.mpi_ops import gloo_built as gloo_built
from hvd_gossip.tensorflow.mpi_ops import gloo_enabled as gloo_enabled
from hvd_gossip.tensorflow.mpi_ops import grouped_allgather as grouped_allgather
from hvd_gossip.tensorflow.mpi_ops import grouped_allreduce as grouped_allreduce
from hvd_gossip.tensorflow.mpi_ops import grouped_reducescatter as grouped_reducescatter
from hvd_gossip.tensorflow.mpi_ops import init as init
from hvd_gossip.tensorflow.mpi_ops import is_homogeneous as is_homogeneous
from hvd_gossip.tensorflow.mpi_ops import is_initialized as is_initialized
from hvd_gossip.tensorflow.mpi_ops import join as join
from hvd_gossip.tensorflow.mpi_ops import local_rank as local_rank
from hvd_gossip.tensorflow.mpi_ops import local_rank_op as local_rank_op
from hvd_gossip.tensorflow.mpi_ops import local_size as local_size
from hvd_gossip.tensorflow.mpi_ops import local_size_op as local_size_op
from hvd_gossip.tensorflow.mpi_ops import mpi_built as mpi_built
from hvd_gossip.tensorflow.mpi_ops import mpi_enabled as mpi_enabled
from hvd_gossip.tensorflow.mpi_ops import mpi_threads_supported as mpi_threads_supported
from hvd_gossip.tensorflow.mpi_ops import nccl_built as nccl_built
from hvd_gossip.tensorflow.mpi_ops import process_set_included_op as process_set_included_op
from hvd_gossip.tensorflow.mpi_ops import rank as rank
from hvd_gossip.tensorflow.mpi_ops import rank_op as rank_op
from hvd_gossip.tensorflow.mpi_ops import reducescatter as reducescatter
from hvd_gossip.tensorflow.mpi_ops import remove_process_set as remove_process_set
from hvd_gossip.tensorflow.mpi_ops import rocm_built as rocm_built
from hvd_gossip.tensorflow.mpi_ops import shutdown as shutdown
from hvd_gossip.tensorflow.mpi_ops import size as size
from hvd_gossip.tensorflow.mpi_ops import size_op as size_op
from hvd_gossip.tensorflow.mpi_ops import start_timeline as start_timeline
from hvd_gossip.tensorflow.mpi_ops import stop_timeline as stop_timeline
from hvd_gossip.tensorflow.optimizer import DistributedOptimizer as DistributedOptimizer
from hvd_gossip.tensorflow.sharing import work_shared as work_shared
from hvd_gossip.tensorflow.sync_batch_norm import SyncBatchNormalization as SyncBatchNormalization
from hvd_gossip.tensorflow.tape import DistributedGradientTape as DistributedGradientTape
from hvd_gossip.tensorflow.tape import PartialDistributedGradientTape as PartialDistributedGradientTape
