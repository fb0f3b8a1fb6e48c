"""AccumAdam and AccumAdamW of Keras 3: against their equations, saved and loaded, and inside DistributedOptimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

import hvd_gossip.tensorflow.keras as hvd  # noqa: E402

from tests.accumulated import Vector, accumulated_adam  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""Keras 3's own, when a model is saved."""


def gradients(count: int) -> list[Vector]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((5, 3)) for _ in range(count)]


def start() -> Vector:
    values: Vector = np.linspace(-2, 2, 15).reshape(5, 3)
    return values


def descend(optimizer: Any, x: Vector, given: list[Vector]) -> Vector:
    variable = keras.Variable(x, dtype="float64")
    for gradient in given:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    result: Vector = variable.numpy()
    return result


@pytest.mark.parametrize("s", [1, 2, 5])
@pytest.mark.parametrize("kind", [hvd.AccumAdam, hvd.AccumAdamW])
def test_its_steps_are_those_of_the_equations(kind: Any, s: int) -> None:
    given = gradients(13)
    optimizer = kind(0.05, 0.8, 0.95, 1e-6, accum_iter=s, weight_decay=0.3)
    expected = accumulated_adam(start(), given, lr=0.05, betas=(0.8, 0.95), eps=1e-6, s=s, weight_decay=0.3)
    np.testing.assert_allclose(descend(optimizer, start(), given), expected, rtol=0, atol=1e-6)


def test_its_steps_are_those_of_pytorch_s() -> None:
    torch = pytest.importorskip("torch")
    import hvd_gossip.torch as hvd_torch

    given = gradients(11)
    parameter = torch.nn.Parameter(torch.tensor(start()))
    theirs = hvd_torch.AccumAdamW([parameter], lr=0.05, weight_decay=0.1, accum_iter=3)
    for gradient in given:
        parameter.grad = torch.tensor(gradient)
        theirs.step()
    ours = descend(hvd.AccumAdamW(0.05, accum_iter=3, weight_decay=0.1), start(), given)
    np.testing.assert_allclose(ours, parameter.detach().numpy(), rtol=0, atol=1e-6)


def compiled(optimizer: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    model.compile(optimizer=optimizer, loss="mse")
    return model


def fit(model: Any, first: int, count: int) -> Any:
    rng = np.random.default_rng(1)
    inputs, targets = rng.standard_normal((64, 4)), rng.standard_normal((64, 3))
    rows = slice(8 * first, 8 * (first + count))
    model.fit(inputs[rows], targets[rows], batch_size=8, epochs=1, verbose=0, shuffle=False)
    return model


def test_a_saved_model_goes_on_bit_by_bit(tmp_path: Path) -> None:
    """Also within a period, under tf.function, and with its settings."""
    whole = fit(compiled(hvd.AccumAdamW(0.1, accum_iter=3)), 0, 4)
    whole.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, hvd.AccumAdamW)
    assert loaded.optimizer.get_config() == whole.optimizer.get_config()
    for a, b in zip(fit(whole, 4, 4).get_weights(), fit(loaded, 4, 4).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_inside_distributed_optimizer_it_is_the_same() -> None:
    hvd.init(report=False)
    try:
        plain = fit(compiled(hvd.AccumAdam(0.1, accum_iter=2)), 0, 8).get_weights()
        for settings in ({}, {"algorithm": "dpsgd"}):
            wrapped = hvd.DistributedOptimizer(hvd.AccumAdam(0.1, accum_iter=2), **settings)
            for a, b in zip(fit(compiled(wrapped), 0, 8).get_weights(), plain, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        hvd.shutdown()


@pytest.mark.parametrize("options", [{"accum_iter": 0}, {"accum_iter": 2.5}, {"beta_1": 1.0}, {"beta_2": -0.1}])
def test_what_it_does_not_take(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        hvd.AccumAdam(**options)
