"""The score gradient and the critic's loss with models whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.diffusion.velocity import guided
from relic_jax.models.conditioning import Conditions
from relic_jax.train.terms import score

SHAPE = (3, 4, 2, 3, 2)  # clips, latents, cells, channels


def given(batch=3):
    return Conditions.of(jnp.ones((batch, 1, 1)), jnp.zeros((batch, 4, 52)), jnp.zeros((batch, 4, 48)))


def video(seed=0):
    return jax.random.normal(jax.random.key(seed), SHAPE)


def sees(clean, levels=None):
    """A model that takes every noisy video for this clean one; `levels` collects the levels it is asked at."""

    def predict(x, level, given):
        if levels is not None:
            levels.append(level)
        s = jnp.maximum(level, 1e-6)[..., None, None, None]
        return (x - clean) / s

    return predict


def test_gradient_is_the_difference_of_what_both_see_over_the_distance_to_the_real():
    student, real, fake = video(0), video(1), video(2)
    got = score.score_gradient(sees(real), sees(fake), student, given(), jax.random.key(3))
    distance = np.abs(student - real)[:, 1:].mean(axis=(1, 2, 3, 4), keepdims=True)
    np.testing.assert_allclose(got[:, 1:], ((fake - real) / distance)[:, 1:], rtol=1e-4, atol=1e-4)
    assert (got[:, 0] == 0).all()


def test_where_the_teacher_agrees_to_the_last_bit_the_gradient_is_zero_and_never_nan():
    student = video(0)

    def agrees(x, level, given):  # exact where the division's rounding would not be
        return jnp.where(level[..., None, None, None] > 0, (x - student) / level[..., None, None, None], 0) * jnp.nan

    got = score.score_gradient(agrees, sees(video(1)), student, given(), jax.random.key(3))
    assert (got == 0).all()


def test_levels_are_one_a_clip_within_bounds_and_the_picture_is_clean():
    levels = []
    many = jnp.zeros((4000, 4, 1, 1, 1))
    score.critic_loss(sees(many, levels), many, given(4000), jax.random.key(0))
    (level,) = levels
    assert (level[:, 0] == 0).all() and (level[:, 1:] == level[:, 1:2]).all()
    drawn = np.sort(np.asarray(level[:, 1]))
    assert drawn[0] == np.float32(0.02) and drawn[-1] == np.float32(0.98)
    # Uniform, shifted by 5: the median of 5 u / (1 + 4 u) is 5/6.
    assert abs(np.median(drawn) - 5 / 6) < 0.02
    assert np.mean(drawn == drawn[-1]) == pytest.approx(1 - 0.98 / (5 - 4 * 0.98), abs=0.02)


def test_guidance_extrapolates_from_the_model_without_text():
    def model(x, level, given):
        return x + given.text[:, :, :, None, None] * 2 + given.actions.mean() + 3

    x, level = video(), jnp.ones((3, 4))
    got = guided(model, 4.0)(x, level, given())
    np.testing.assert_allclose(got, x + 3 + 4 * 2, rtol=1e-6)
    np.testing.assert_allclose(guided(model, 1.0)(x, level, given()), model(x, level, given()), rtol=1e-6)


def test_critic_that_sees_the_students_video_has_no_loss_and_the_picture_none_at_all():
    student = video(0)
    assert score.critic_loss(sees(student), student, given(), jax.random.key(1)) < 1e-8
    other = student.at[:, 0].add(100.0)
    assert score.critic_loss(sees(other), student, given(), jax.random.key(1)) < 1e-8
    assert score.critic_loss(sees(student.at[:, 1].add(1.0)), student, given(), jax.random.key(1)) > 0.1


def test_following_the_gradient_matches_distributions():
    """A student of Gaussian videos with the exact scores of its own and the real distribution ends at the real one."""
    real_mean, real_std = 1.5, 0.5

    def gaussian(mean, std):
        def predict(x, level, given):
            s = level[..., None, None, None]
            clean = mean + (1 - s) * std**2 / ((1 - s) ** 2 * std**2 + s**2 + 1e-12) * (x - (1 - s) * mean)
            return jnp.where(s > 0, (x - clean) / jnp.maximum(s, 1e-6), 0)

        return predict

    @jax.jit
    def step(theta, key):
        keys = jax.random.split(key)
        noise = jax.random.normal(keys[0], (256, 4, 1, 1, 1))

        def student(theta):
            return theta[0] + jnp.exp(theta[1]) * noise

        frozen = jax.lax.stop_gradient(theta)
        made, vjp = jax.vjp(student, theta)
        critic = gaussian(frozen[0], jnp.exp(frozen[1]))
        wanted = score.score_gradient(gaussian(real_mean, real_std), critic, made, given(256), keys[1])
        return theta - 0.05 * vjp(wanted / wanted.size)[0]

    theta = jnp.array([-1.0, 0.5])
    for i in range(600):
        theta = step(theta, jax.random.key(i))
    np.testing.assert_allclose([theta[0], jnp.exp(theta[1])], [real_mean, real_std], atol=0.1)
