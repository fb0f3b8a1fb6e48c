"""hvd-gossip for PyTorch: Horovod's documented API, with gossip algorithms behind one setting.

    import hvd_gossip.torch as hvd    # was: import horovod.torch as hvd

This file is the public API.
"""

from hvd_gossip.torch import elastic as elastic
from hvd_gossip.torch import mpi_ops as mpi_ops
from hvd_gossip.torch.compression import Compression as Compression
from hvd_gossip.torch.functions import broadcast_optimizer_state as broadcast_optimizer_state
from hvd_gossip.torch.functions import broadcast_parameters as broadcast_parameters
from hvd_gossip.torch.model_mean import consensus as consensus
from hvd_gossip.torch.model_mean import consensus_distance as consensus_distance
from hvd_gossip.torch.mpi_ops import Adasum as Adasum
from hvd_gossip.torch.mpi_ops import Average as Average
from hvd_gossip.torch.mpi_ops import HorovodInternalError as HorovodInternalError
from hvd_gossip.torch.mpi_ops import Max as Max
from hvd_gossip.torch.mpi_ops import Min as Min
from hvd_gossip.torch.mpi_ops import ProcessSet as ProcessSet
from hvd_gossip.torch.mpi_ops import Product as Product
from hvd_gossip.torch.mpi_ops import Sum as Sum
from hvd_gossip.torch.mpi_ops import add_process_set as add_process_set
from hvd_gossip.torch.mpi_ops import allgather as allgather
from hvd_gossip.torch.mpi_ops import allgather_async as allgather_async
from hvd_gossip.torch.mpi_ops import allreduce as allreduce
from hvd_gossip.torch.mpi_ops import allreduce_ as allreduce_
from hvd_gossip.torch.mpi_ops import allreduce_async as allreduce_async
from hvd_gossip.torch.mpi_ops import allreduce_async_ as allreduce_async_
from hvd_gossip.torch.mpi_ops import alltoall as alltoall
from hvd_gossip.torch.mpi_ops import alltoall_async as alltoall_async
from hvd_gossip.torch.mpi_ops import barrier as barrier
from hvd_gossip.torch.mpi_ops import broadcast as broadcast
from hvd_gossip.torch.mpi_ops import broadcast_ as broadcast_
from hvd_gossip.torch.mpi_ops import broadcast_async as broadcast_async
from hvd_gossip.torch.mpi_ops import broadcast_async_ as broadcast_async_
from hvd_gossip.torch.mpi_ops import ccl_built as ccl_built
from hvd_gossip.torch.mpi_ops import cross_rank as cross_rank
from hvd_gossip.torch.mpi_ops import cross_size as cross_size
from hvd_gossip.torch.mpi_ops import cuda_built as cuda_built
from hvd_gossip.torch.mpi_ops import ddl_built as ddl_built
from hvd_gossip.torch.mpi_ops import global_process_set as global_process_set
from hvd_gossip.torch.mpi_ops import gloo_built as gloo_built
from hvd_gossip.torch.mpi_ops import gloo_enabled as gloo_enabled
from hvd_gossip.torch.mpi_ops import grouped_allgather as grouped_allgather
from hvd_gossip.torch.mpi_ops import grouped_allgather_async as grouped_allgather_async
from hvd_gossip.torch.mpi_ops import grouped_allreduce as grouped_allreduce
from hvd_gossip.torch.mpi_ops import grouped_allreduce_ as grouped_allreduce_
from hvd_gossip.torch.mpi_ops import grouped_allreduce_async as grouped_allreduce_async
from hvd_gossip.torch.mpi_ops import grouped_allreduce_async_ as grouped_allreduce_async_
from hvd_gossip.torch.mpi_ops import grouped_reducescatter as grouped_reducescatter
from hvd_gossip.torch.mpi_ops import grouped_reducescatter_async as grouped_reducescatter_async
from hvd_gossip.torch.mpi_ops import init as init
from hvd_gossip.torch.mpi_ops import is_homogeneous as is_homogeneous
from hvd_gossip.torch.mpi_ops import is_initialized as is_initialized
from hvd_gossip.torch.mpi_ops import join as join
from hvd_gossip.torch.mpi_ops import local_rank as local_rank
from hvd_gossip.torch.mpi_ops import local_size as local_size
from hvd_gossip.torch.mpi_ops import mpi_built as mpi_built
from hvd_gossip.torch.mpi_ops import mpi_enabled as mpi_enabled
from hvd_gossip.torch.mpi_ops import mpi_threads_supported as mpi_threads_supported
from hvd_gossip.torch.mpi_ops import nccl_built as nccl_built
from hvd_gossip.torch.mpi_ops import poll as poll
from hvd_gossip.torch.mpi_ops import rank as rank
from hvd_gossip.torch.mpi_ops import reducescatter as reducescatter
from hvd_gossip.torch.mpi_ops import reducescatter_async as reducescatter_async
from hvd_gossip.torch.mpi_ops import remove_process_set as remove_process_set
from hvd_gossip.torch.mpi_ops import rocm_built as rocm_built
from hvd_gossip.torch.mpi_ops import shutdown as shutdown
from hvd_gossip.torch.mpi_ops import size as size
from hvd_gossip.torch.mpi_ops import sparse_allreduce_async as sparse_allreduce_async
from hvd_gossip.torch.mpi_ops import synchronize as synchronize
from hvd_gossip.torch.optimizer import DistributedOptimizer as DistributedOptimizer
from hvd_gossip.torch.sampler import WorkSharingSampler as WorkSharingSampler
from hvd_gossip.torch.sync_batch_norm import SyncBatchNorm as SyncBatchNorm

from hvd_gossip.objects import allgather_object as allgather_object
from hvd_gossip.objects import broadcast_object as broadcast_object
