"""Compressors."""

from __future__ import annotations

import pytest
import torch
from hvd_gossip.torch.compression import Compression, Compressor


@pytest.mark.parametrize(
    ("compressor", "dtype"), [(Compression.fp16, torch.float16), (Compression.bf16, torch.bfloat16)]
)
def test_wide_floats_travel_as_halves(compressor: type[Compressor], dtype: torch.dtype) -> None:
    tensor = torch.tensor([1.0, -2.5, 1000.0])
    for wide in (tensor, tensor.double()):
        sent, ctx = compressor.compress(wide)
        assert sent.dtype == dtype
        back = compressor.decompress(sent, ctx)
        assert back.dtype == wide.dtype
        torch.testing.assert_close(back, wide, rtol=1e-2, atol=0)


@pytest.mark.parametrize("compressor", [Compression.none, Compression.fp16, Compression.bf16])
def test_other_types_travel_as_they_are(compressor: type[Compressor]) -> None:
    for tensor in (torch.arange(3), torch.ones(2, dtype=torch.float16), torch.ones(2, dtype=torch.bfloat16)):
        sent, ctx = compressor.compress(tensor)
        assert sent is tensor
        assert compressor.decompress(sent, ctx) is tensor


def test_none_sends_the_tensor_itself() -> None:
    tensor = torch.ones(2)
    sent, ctx = Compression.none.compress(tensor)
    assert sent is tensor
    assert Compression.none.decompress(sent, ctx) is tensor


def test_the_interface_is_to_be_implemented() -> None:
    with pytest.raises(NotImplementedError):
        Compressor.compress(torch.ones(1))
    with pytest.raises(NotImplementedError):
        Compressor.decompress(torch.ones(1), None)
