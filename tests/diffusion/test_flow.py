"""Paths between data and noise, against arithmetic by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.diffusion import flow

pytestmark = pytest.mark.usefixtures("compile_once")

SHAPE = (2, 3, 4, 5, 2)
CLEAN, NOISE = jnp.asarray(np.random.default_rng(0).normal(size=(2, *SHAPE)), jnp.float32)
LEVELS = jnp.array([[0, 0.25, 1], [0.5, 0.1, 0.9]])  # another for each latent


def path(level):
    """The point of the path where each latent has its level."""
    level = np.asarray(level)[:, :, None, None, None]
    return (1 - level) * np.asarray(CLEAN) + level * np.asarray(NOISE)


def test_shift_keeps_the_ends_and_warps_toward_noise():
    np.testing.assert_allclose(flow.shift(jnp.array([0, 0.5, 0.75, 1])), [0, 2.5 / 3, 3.75 / 4, 1], rtol=1e-6)
    np.testing.assert_allclose(flow.shift(jnp.array([0.2, 0.5]), 3.0), [0.6 / 1.4, 1.5 / 2], rtol=1e-6)
    np.testing.assert_allclose(flow.shift(jnp.array([0.2, 0.7]), 1.0), [0.2, 0.7], rtol=1e-6)


def test_noise_is_added_by_each_latents_level():
    noisy = flow.add_noise(CLEAN, NOISE, LEVELS)
    np.testing.assert_allclose(noisy, path(LEVELS), atol=1e-6)
    np.testing.assert_array_equal(noisy[0, 0], CLEAN[0, 0])
    np.testing.assert_array_equal(noisy[0, 2], NOISE[0, 2])


def test_the_true_velocity_leads_to_the_data_and_along_the_path():
    noisy, velocity = flow.add_noise(CLEAN, NOISE, LEVELS), flow.velocity(CLEAN, NOISE)
    np.testing.assert_array_equal(velocity, NOISE - CLEAN)
    np.testing.assert_allclose(flow.predict_clean(noisy, velocity, LEVELS), CLEAN, atol=1e-6)
    to = LEVELS / 3
    np.testing.assert_allclose(flow.euler(noisy, velocity, LEVELS, to), path(to), atol=1e-6)


@pytest.mark.parametrize("levels", [[1.0], [1.0, 0.9, 0.4], [1.0, 0.75, 0.5, 0.25]])
def test_solve_ends_at_the_data_that_a_straight_path_leads_to(levels):
    end, passed = flow.solve(lambda x, level: NOISE - CLEAN, NOISE, CLEAN[:, 0], jnp.array(levels))
    np.testing.assert_allclose(end[:, 1:], CLEAN[:, 1:], atol=1e-6)
    assert passed.shape == (len(levels), *SHAPE)
    for level, x in zip(levels, passed, strict=True):
        np.testing.assert_allclose(x[:, 1:], path(np.full((2, 3), level))[:, 1:], atol=1e-6)


def test_solve_takes_eulers_steps_and_holds_the_picture_at_level_0():
    levels, picture = [1.0, 0.7, 0.2], CLEAN[:, 0]
    end, passed = flow.solve(
        lambda x, level: x * (1 + level[:, :, None, None, None]),  # as large where the picture is
        NOISE,
        picture,
        jnp.array(levels),
    )
    x = np.array(NOISE)
    x[:, 0] = picture
    for level, to, seen in zip(levels, [*levels[1:], 0], passed, strict=True):
        np.testing.assert_allclose(seen, x, rtol=1e-5, atol=1e-6)
        x[:, 1:] += (to - level) * x[:, 1:] * (1 + level)
    np.testing.assert_allclose(end, x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(end[:, 0], picture)


def test_solve_says_the_level_of_each_latent():
    def level_as_velocity(x, level):
        return jnp.broadcast_to(level[:, :, None, None, None], x.shape)

    levels = [1.0, 0.6]
    end, _ = flow.solve(level_as_velocity, jnp.zeros(SHAPE), jnp.full((2, 4, 5, 2), 7.0), jnp.array(levels))
    np.testing.assert_array_equal(end[:, 0], 7)  # its velocity was its level, 0
    np.testing.assert_allclose(end[:, 1:], (0.6 - 1) * 1 + (0 - 0.6) * 0.6, rtol=1e-5)
