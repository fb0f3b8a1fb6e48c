"""Replicas: chunks, corrections, and the copy that is read while the parameters hold a mean."""

import ml_dtypes
import numpy as np
import pytest

from hvd_gossip.buffers.replica import Replica


def flat(length: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length).astype(dtype)  # type: ignore[no-any-return]


def test_chunks_cover_every_flat_buffer_once() -> None:
    flats = [flat(1000), flat(10, np.float64), flat(0), flat(333, ml_dtypes.bfloat16)]
    replica = Replica(flats, chunk_bytes=256)
    assert sum(chunk.x.nbytes for chunk in replica.chunks) == replica.nbytes == sum(f.nbytes for f in flats)
    assert max(chunk.x.nbytes for chunk in replica.chunks) <= 256
    for number, chunk in enumerate(replica.chunks):
        assert chunk.index == number
        assert chunk.capacity >= chunk.x.size
        chunk.x[:] = number
    assert sorted(np.unique(np.concatenate([f.astype(int) for f in flats]))) == list(range(len(replica.chunks)))


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.float32), np.zeros(4, np.int32), np.zeros(8, np.float32)[::2]])
def test_what_is_no_flat_buffer_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="flat buffer 1 must be 1-D"):
        Replica([np.zeros(1, np.float32), bad])


def test_fold_applies_and_clears_the_correction() -> None:
    x = flat(100)
    start, replica = x.copy(), Replica([x], chunk_bytes=64)
    replica.chunks[2].correct(0.5, np.full(16, 4, np.float32), np.full(16, 2, np.float32))
    assert [chunk.pending for chunk in replica.chunks] == [index == 2 for index in range(7)]
    replica.fold()
    expected = start.copy()
    expected[32:48] += 1
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    assert not any(chunk.pending for chunk in replica.chunks)
    assert replica.applied == 1
    replica.fold()
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    assert replica.applied == 1


@pytest.mark.parametrize("wire", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_snapshot_is_parameters_plus_correction(wire: type) -> None:
    x = flat(16)
    replica = Replica([x])
    (chunk,) = replica.chunks
    out = np.empty(16, wire)
    chunk.snapshot(out)
    np.testing.assert_array_equal(out, x.astype(wire))
    chunk.correct(1.0, np.full(16, 3, np.float32), np.zeros(16, np.float32))
    chunk.snapshot(out)
    np.testing.assert_array_equal(out, (x + np.float32(3)).astype(wire))


def test_prepare_and_finish_divide_update_and_correction_by_the_weight() -> None:
    x = flat(32, np.float64)
    z, update = x.copy(), flat(32, np.float64, 1)
    replica = Replica([x], chunk_bytes=128)
    for chunk in replica.chunks:
        chunk.correct(1.0, np.full(16, 2.0), np.zeros(16))
    weights = [0.5, 2.0]
    replica.prepare(weights)
    x += update
    replica.finish(weights)
    divisor = np.repeat(weights, 16)
    np.testing.assert_allclose(x, z + (update + 2.0) / divisor, rtol=1e-14)


def test_a_weight_of_one_changes_no_bit() -> None:
    x = flat(32)
    before, replica = x.copy(), Replica([x])
    replica.prepare([1.0])
    replica.finish([1.0])
    np.testing.assert_array_equal(x, before)


def test_while_held_the_engine_reads_the_own_values() -> None:
    x = flat(40)
    own, replica = x.copy(), Replica([x], chunk_bytes=64)
    replica.hold()
    x[:] = 7
    out = np.empty(16, np.float32)
    replica.chunks[0].snapshot(out)
    np.testing.assert_array_equal(out, own[:16])
    assert replica.held_distance() == pytest.approx(float(((own.astype(np.float64) - 7) ** 2).sum()))
    replica.chunks[0].correct(1.0, np.ones(16, np.float32), np.zeros(16, np.float32))
    replica.release()
    np.testing.assert_array_equal(x, own)
    replica.fold()
    own[:16] += 1
    np.testing.assert_array_equal(x, own)
    with pytest.raises(RuntimeError, match="without hold"):
        replica.release()


def test_a_preview_shows_the_correction_and_release_takes_it_back() -> None:
    x = flat(16, np.float64)
    own, replica = x.copy(), Replica([x])
    replica.chunks[0].correct(1.0, np.full(16, 3.0), np.zeros(16))
    replica.hold()
    replica.preview([2.0])
    np.testing.assert_allclose(x, own + 1.5, rtol=1e-15)
    replica.release()
    np.testing.assert_array_equal(x, own)
    replica.fold()
    np.testing.assert_array_equal(x, own + 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_average_adds_as_correct_does(dtype: type) -> None:
    replica = Replica([np.zeros(16, dtype)])
    chunk = replica.chunks[0]
    for theirs, expected in ((4.0, 1.0), (8.0, 4.0)):  # the first one finds the correction zero, the second does not
        assert chunk.average(0.5, np.full(16, theirs, dtype), np.full(16, 2.0, dtype))
        np.testing.assert_array_equal(chunk.correction, np.full(16, expected, dtype))
    replica.fold()
    assert chunk.average(0.5, np.full(16, 4.0, dtype), np.full(16, 2.0, dtype))
    np.testing.assert_array_equal(chunk.correction, np.full(16, 1.0, dtype))


@pytest.mark.parametrize("wire", [np.float32, np.float16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("both", [False, True])
def test_average_refuses_what_is_not_finite_on_either_side(wire: type, bad: float, both: bool) -> None:
    chunk = Replica([np.zeros(16, np.float32)]).chunks[0]
    poisoned, sound = np.ones(16, wire), np.full(16, bad if both else 2.0, wire)
    poisoned[7] = bad
    assert not chunk.average(0.5, poisoned.copy(), sound.copy())
    assert not chunk.average(0.5, sound.copy(), poisoned.copy())
    assert not chunk.pending
    assert not chunk.correction.any()
