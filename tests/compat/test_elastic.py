"""Horovod's names of elastic training, under its module names."""

from __future__ import annotations

import pytest

from tests.compat.test_finder import WAYS, python


@pytest.mark.parametrize("way", WAYS)
def test_common_modules(way: str) -> None:
    code = """
        from horovod.common.elastic import ObjectState, State, notification_manager, run_fn
        from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt
        from hvd_gossip import elastic, errors
        assert (ObjectState, State, run_fn) == (elastic.ObjectState, elastic.State, elastic.run_fn)
        assert notification_manager is elastic.notification_manager
        assert HostsUpdatedInterrupt is errors.HostsUpdatedInterrupt
        assert issubclass(HostsUpdatedInterrupt, RuntimeError)
        print(HostsUpdatedInterrupt().skip_sync, HostsUpdatedInterrupt(True).skip_sync)
    """
    assert python(way, code) == "False True\n"


@pytest.mark.parametrize("way", WAYS)
def test_pytorch_modules(way: str) -> None:
    code = """
        import horovod.torch as hvd
        from horovod.torch.elastic import ElasticSampler, TorchState, run
        from horovod.torch.elastic.sampler import ElasticSampler as same_sampler
        from horovod.torch.elastic.state import TorchState as same_state
        from horovod.torch.sync_batch_norm import SyncBatchNorm
        assert (ElasticSampler, TorchState) == (same_sampler, same_state)
        assert (hvd.elastic.TorchState, hvd.elastic.run, hvd.SyncBatchNorm) == (TorchState, run, SyncBatchNorm)
        print(hvd.elastic.__name__)
    """
    assert python(way, code) == "hvd_gossip.torch.elastic\n"
