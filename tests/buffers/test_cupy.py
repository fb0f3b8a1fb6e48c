"""On a GPU, with CuPy itself: the kernels, the compressors and staged exchanges give what NumPy's give."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hvd_gossip.algorithms.lanes import Lanes
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.buffers import arrays
from hvd_gossip.buffers.cuda import CudaSpace
from hvd_gossip.buffers.replica import Replica
from hvd_gossip.compressors import COMPRESSORS, make_compressor
from hvd_gossip.observe.counters import Counters
from hvd_gossip.transport.endpoint import Endpoint
from hvd_gossip.transport.simulated import SimulatedWorld

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
LENGTHS = (1, 7, 64, 65, 1200, 70_001)


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    pytest.importorskip("cupy", reason="CuPy is not installed")
    module = importlib.import_module("cupy")
    if not module.cuda.is_available():
        pytest.skip("there is no GPU")
    yield module
    module.cuda.Stream.null.use()


class Finished(CudaSpace):
    """In virtual time a device gets nothing done: what is waited for is made to happen."""

    def settled(self, endpoint: Endpoint) -> Awaitable[None]:
        self._stream.synchronize()
        return super().settled(endpoint)


def numbers(dtype: Any, seed: int, length: int = 70_001) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length).astype(dtype)


def kernels(xp: Any, dtype: Any) -> list[np.ndarray]:
    """What each kernel gives, one after the other."""
    x, a, b = (xp.asarray(numbers(dtype, seed)) for seed in range(3))
    found: list[Any] = []
    out = xp.empty_like(x)
    arrays.add_into(out, x, a)
    found.append(out.copy())
    arrays.add_scaled(out, -0.25, b)
    found.append(out.copy())
    found.append(arrays.weighted_difference(0.3, a, b, x.dtype))
    arrays.add_difference(x, 0.5, a.copy(), b)
    found.append(x)
    arrays.scale(b, 3.0)
    found.append(b)
    return [arrays.to_host(array).astype(np.float64) for array in found]


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_round_as_numpys_do(cupy: Any, dtype: Any) -> None:
    for device, host in zip(kernels(cupy, dtype), kernels(np, dtype), strict=True):
        np.testing.assert_allclose(device, host, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_poison_and_distance(cupy: Any, dtype: Any) -> None:
    one, other = numbers(dtype, 0), numbers(dtype, 1)
    there, beside = cupy.asarray(one), cupy.asarray(other)
    assert arrays.squared_distance(there, beside) == pytest.approx(arrays.squared_distance(one, other), rel=1e-12)
    assert arrays.is_finite(there)
    for bad in (np.nan, np.inf):
        there[-1] = bad
        assert not arrays.is_finite(there)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(COMPRESSORS))
@pytest.mark.parametrize("length", LENGTHS)
def test_compressors(cupy: Any, name: str, dtype: Any, length: int) -> None:
    """A wire says the same on both sides; those that choose nothing at random (on the
    device) make the same, but for which of equal magnitudes top-k takes."""
    compressor, array = make_compressor(name, 0.3), numbers(dtype, 3, length)
    wire = compressor.compress(cupy.asarray(array), np.random.default_rng(5))
    assert isinstance(wire, cupy.ndarray)
    on_host, out = arrays.to_host(wire), cupy.full_like(cupy.asarray(array), 7)
    compressor.decompress(wire, out)
    expected = np.full_like(array, 7)
    compressor.decompress(on_host, expected)
    got, expected = arrays.to_host(out).astype(np.float64), expected.astype(np.float64)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-30)
    if name.startswith("qsgd"):
        wide = array.astype(np.float64)
        assert np.square(got - wide).sum() <= (1 - compressor.delta(length) + 2e-2) * np.square(wide).sum() + 1e-12
    else:
        plain = np.empty_like(array)
        compressor.decompress(compressor.compress(array, np.random.default_rng(5)), plain)
        kept, of_host = (
            np.sort(abs(values)) if name == "top-k" else values for values in (got, plain.astype(np.float64))
        )
        np.testing.assert_allclose(abs(kept), abs(of_host), rtol=2e-3 if name == "sign" else 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wire", ["parameter", "float16", "bfloat16"])
def test_a_staged_exchange(cupy: Any, dtype: Any, wire: str) -> None:
    world = SimulatedWorld(2)
    flats = [cupy.asarray(np.full(50_000, rank + 1).astype(dtype)) for rank in range(2)]
    replicas = [Replica([flat], 1 << 14, Finished(0, direct=False)) for flat in flats]

    def average(rank: int) -> Any:
        lanes = Lanes(
            world.endpoints[rank], replicas[rank], MixingSettings(wire_dtype=wire), Counters(), 64, corrected=True
        )
        peer = 1 - rank
        return lanes.exchange([peer], [peer], lambda chunk, mine, got: chunk.correct(0.5, got[peer], mine))

    for _ in range(3):
        world.run([world.endpoints[rank].spawn(average(rank)) for rank in range(2)])
        for replica in replicas:
            replica.fold()
    for flat in flats:
        assert set(arrays.to_host(flat).astype(float).tolist()) == {1.5}


def test_a_companion_and_a_held_mean(cupy: Any) -> None:
    values = numbers(np.float32, 4)
    replica = Replica([cupy.asarray(values)], 1 << 14, CudaSpace(0, direct=False))
    companion = replica.companion()
    companion.copy_from(replica.flats)
    companion.load(companion.state(), "a companion")
    np.testing.assert_array_equal(companion.state()[0], values)
    replica.hold()
    replica.flats[0][...] = 0
    assert replica.held_distance() == pytest.approx(float(np.square(values.astype(np.float64)).sum()), rel=1e-6)
    replica.release()
    np.testing.assert_array_equal(arrays.to_host(replica.flats[0]), values)
