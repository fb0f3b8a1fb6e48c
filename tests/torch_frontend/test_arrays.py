"""Tensors as arrays that share their memory."""

from __future__ import annotations

import contextlib
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
from hvd_gossip.torch import arrays
from hvd_gossip.torch.arrays import as_array, as_tensor, check_tensor, is_dense, memory_of, ordered

DTYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.uint8: np.uint8,
    torch.int8: np.int8,
    torch.int16: np.int16,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.bool: np.bool_,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_array_shares_the_tensors_memory(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 1]]).to(dtype)
    array = as_array(tensor)
    assert array.dtype == np.dtype(DTYPES[dtype])
    assert array.tolist() == [[0, 1], [1, 1]]
    array[0, 0] = 1
    assert tensor[0, 0].item() == 1
    back = as_tensor(array)
    assert back.dtype == dtype
    assert back.data_ptr() == tensor.data_ptr()
    assert torch.equal(back, tensor)


def test_a_parameter_is_written_through_its_array() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    as_array(parameter)[:] = 2.0
    assert parameter.tolist() == [2.0] * 3


@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_shapes_without_or_with_one_element(shape: tuple[int, ...]) -> None:
    assert as_array(torch.zeros(shape)).shape == shape


def test_what_has_no_array() -> None:
    with pytest.raises(ValueError, match="not contiguous"):
        as_array(torch.zeros(2, 3).t())
    with pytest.raises(ValueError, match=r"complex64 are not supported; supported: float32, .*bfloat16"):
        check_tensor(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"sparse_coo.*to_dense"):
        check_tensor(torch.eye(2).to_sparse())
    with pytest.raises(ValueError, match="device meta"):
        check_tensor(torch.zeros(2, device="meta"))


def test_the_cpu_needs_no_order_of_streams() -> None:
    with ordered(torch.device("cpu")) as nothing:
        assert nothing is None
    assert isinstance(ordered(torch.device("cpu")), contextlib.nullcontext)


def test_cuda_without_cupy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"pip install 'hvd-gossip\[cuda13\]'"):
        ordered(torch.device("cuda", 0))
    assert arrays.Array is not None


@pytest.mark.parametrize(
    ("tensor", "dense"),
    [
        (torch.zeros(2, 3, 4), True),
        (torch.zeros(2, 3, 4).permute(2, 0, 1), True),
        (torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last), True),
        (torch.zeros(4, 6)[:, ::2], False),
        (torch.zeros(4, 6)[:, :3], False),
        (torch.zeros(3, 1).expand(3, 4), False),
        (torch.zeros(1, 3, 1), True),
        (torch.zeros(()), True),
    ],
)
def test_dense_tensors_fill_a_stretch_of_memory(tensor: torch.Tensor, dense: bool) -> None:
    assert is_dense(tensor) is dense


def test_memory_of_a_dense_tensor_is_a_view_in_memory_order() -> None:
    base = torch.arange(24.0)
    tensor = base[:].reshape(2, 3, 4).permute(2, 0, 1)
    assert torch.equal(memory_of(tensor), base)
    memory_of(tensor)[5] = -1.0
    assert base[5] == -1.0
    assert torch.equal(memory_of(base[8:12]), base[8:12])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (3, 5)])
def test_a_copy_for_a_result_is_a_tensor_of_its_own(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    copy = arrays.copy_for_result(tensor)
    assert (copy.shape, copy.dtype, copy.device) == (tensor.shape, tensor.dtype, tensor.device)
    assert copy.is_contiguous()
    assert not copy.requires_grad
    assert torch.equal(copy, tensor)
    copy.zero_()
    assert torch.equal(tensor, torch.ones(shape, dtype=dtype))
