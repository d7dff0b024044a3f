"""Pooling of latents and of keys, against averages taken by NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.memory import compress

pytestmark = pytest.mark.usefixtures("compile_once")


def average(x, factor, unit=1):
    """The mean of each cell of [rows, columns, ...], whose last row and column are repeated to whole cells."""
    rows, columns = (-(-side // (factor * unit)) * unit for side in x.shape[:2])
    result = np.zeros((rows, columns, *x.shape[2:]))
    for i, j in np.ndindex(rows, columns):
        down = np.minimum(np.arange(factor * i, factor * (i + 1)), x.shape[0] - 1)
        across = np.minimum(np.arange(factor * j, factor * (j + 1)), x.shape[1] - 1)
        result[i, j] = x[down][:, across].mean((0, 1))
    return result


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("sides", [(4, 8), (3, 5), (1, 1)])
@pytest.mark.parametrize("unit", [1, 2])
def test_pooling_is_the_mean_of_each_cell(factor, sides, unit):
    x = np.random.default_rng(0).normal(size=(2, 3, *sides, 5)).astype(np.float32)
    pooled = compress.pool(jnp.asarray(x), factor, unit)
    for clip, latent in np.ndindex(2, 3):
        np.testing.assert_allclose(pooled[clip, latent], average(x[clip, latent], factor, unit), atol=1e-6)


def test_odd_sides_are_padded_by_their_edge():
    x = jnp.arange(3.0).reshape(1, 1, 3, 1, 1) * jnp.ones((1, 1, 3, 2, 1))
    np.testing.assert_allclose(compress.pool(x, 2)[0, 0, :, 0, 0], [0.5, 2.0])


def test_the_bank_of_latents_holds_patches_of_every_resolution():
    latents = np.random.default_rng(0).normal(size=(1, 2, 8, 12, 3)).astype(np.float32)
    bank = np.asarray(compress.latent_bank(jnp.asarray(latents), patch=2))[0]
    expected = []
    for factor in (1, 2, 4):
        for latent in latents[0]:
            pooled = average(latent, factor, 2)
            rows, columns = (side // 2 for side in pooled.shape[:2])
            expected += [pooled[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel() for i, j in np.ndindex(rows, columns)]
    assert len(expected) == 2 * (24 + 6 + 2)
    np.testing.assert_allclose(bank, expected, atol=1e-6)


def test_the_bank_of_tokens_pools_each_entry_of_each_head():
    tokens = np.random.default_rng(0).normal(size=(2, 2 * 4 * 6, 3, 5)).astype(np.float32)
    bank = np.asarray(compress.token_bank(jnp.asarray(tokens), (4, 6)))
    grids = tokens.reshape(2, 2, 4, 6, 3, 5)
    for clip in range(2):
        pooled = [average(grid, factor).reshape(-1, 3, 5) for factor in (1, 2, 4) for grid in grids[clip]]
        np.testing.assert_allclose(bank[clip], np.concatenate(pooled), atol=1e-6)


def test_tokens_are_pooled_in_float32_and_stored_as_they_came():
    tokens = jnp.array([256, 1, 1, 1], jnp.bfloat16).reshape(1, 4, 1, 1)  # in bfloat16, 256 + 1 is 256
    bank = compress.token_bank(tokens, (2, 2))
    assert bank.dtype == jnp.bfloat16
    assert bank[0, 4, 0, 0] == jnp.bfloat16(259 / 4)
