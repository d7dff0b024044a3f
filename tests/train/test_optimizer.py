"""Warm-up and decay, the moving average, what decays, and Muon's updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError
from relic_jax.train import optimizer
from relic_jax.train.abstract import Leaf
from relic_jax.train.optimizer import OptimizerConfig


def test_schedule():
    rate = optimizer.schedule(OptimizerConfig(learning_rate=1.0, warmup=4, schedule="cosine"), 44)
    np.testing.assert_allclose([rate(i) for i in range(4)], [0.25, 0.5, 0.75, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rate(23), 0.5, atol=1e-6)
    np.testing.assert_allclose(rate(43), 0.0, atol=1e-6)
    assert optimizer.schedule(OptimizerConfig(learning_rate=1e-2), 40)(0) == pytest.approx(1e-2)


def test_average_forgets_a_random_start_or_begins_late():
    one, two = {"a": jnp.ones(2)}, {"a": jnp.full(2, 2.0)}

    def average(step, start=0):
        return optimizer.average(one, two, jnp.int32(step), 0.99, start)["a"]

    np.testing.assert_allclose(average(0), 1.9, rtol=1e-6)
    np.testing.assert_allclose(average(10**6), 1.01, rtol=1e-6)
    np.testing.assert_allclose(average(2, start=3), 2.0, rtol=1e-6)  # the weights themselves
    np.testing.assert_allclose(average(3, start=3), 1.01, rtol=1e-6)


def test_decay_only_where_there_are_matrices():
    axes = {"blocks": {"w": ("layers", "embed", "mlp"), "b": ("layers", "mlp")}, "w": ("embed", "mlp"), "b": ("mlp",)}
    sizes = {"layers": 2, "embed": 3, "mlp": 4}
    leaves = jax.tree.map(
        lambda names: Leaf(tuple(sizes[n] for n in names), jnp.float32, names), axes, is_leaf=lambda x: type(x) is tuple
    )
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), leaves)
    make = optimizer.make(OptimizerConfig(learning_rate=0.1, weight_decay=0.5), 10, leaves)
    update, _ = make.update(jax.tree.map(jnp.zeros_like, params), make.init(params), params)
    decayed = jax.tree.map(lambda x: bool((x != 0).all()), update)
    assert decayed == {"blocks": {"w": True, "b": False}, "w": True, "b": False}


def test_muon_moves_every_matrix_along_all_its_directions_alike():
    cfg = OptimizerConfig(kind="muon", learning_rate=1e-2, weight_decay=0.0)
    rng = np.random.default_rng(0)
    # One direction's gradient is a thousand times the others': Adam's update would follow it, Muon's does not.
    steep = np.diag([1e3, 1.0, 1.0, 1.0])
    params = {
        "linear": {"kernel": jnp.zeros((4, 4)), "bias": jnp.zeros((4,))},
        "blocks": {"linear": {"kernel": jnp.zeros((2, 4, 4))}},
        "conv": {"kernel": jnp.zeros((3, 3, 4, 8))},
        "modulation": jnp.zeros((2, 6, 4)),
    }
    gradient = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
    gradient["linear"]["kernel"] = jnp.asarray(steep, jnp.float32)
    gradient["blocks"]["linear"]["kernel"] = jnp.asarray(np.stack([steep, 1e-3 * steep]), jnp.float32)
    make = optimizer.make(cfg, 40, jax.tree.map(lambda leaf: Leaf(leaf.shape, leaf.dtype, (None,) * leaf.ndim), params))
    update, _ = make.update(gradient, make.init(params), params)

    def spread(matrix):
        values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
        return values.max() / values.min()

    assert spread(update["linear"]["kernel"]) < 2
    assert all(spread(layer) < 2 for layer in update["blocks"]["linear"]["kernel"])
    assert spread(update["conv"]["kernel"].reshape(-1, 8)) < 2
    size = np.abs(update["modulation"])  # Adam's first step: as large for every number
    assert size.max() / size.min() < 1.01


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"learning_rate": 0.0}, "optimizer.learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, "optimizer.learning_rate=nan must be above 0"),
        ({"learning_rate": float("inf")}, "optimizer.learning_rate=inf must be above 0"),
        ({"clip": -1.0}, "optimizer.clip=-1.0 must be above 0"),
        ({"warmup": -1}, "optimizer.warmup=-1 must be at least 0"),
        ({"betas": (0.9, 1.0)}, r"optimizer.betas=\(0.9, 1.0\) must be two numbers in \[0, 1\)"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay=-0.1 must lie between 0 and 1"),
    ],
)
def test_bad_fields_are_named(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        OptimizerConfig(**({"learning_rate": 1e-3} | fields))
