"""The score gradient and the critic's loss with models whose answers are known; what counts as collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.train import collapse, dmd
from relic_jax.train.clips import Conditions

SHAPE = (3, 4, 2, 3, 2)  # clips, latents, cells, channels


def given(batch=3):
    return Conditions(jnp.ones((batch, 1, 1)), jnp.zeros((batch, 4, 52)), jnp.zeros((batch, 4, 48)), jnp.ones((batch,)))


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
    got = dmd.score_gradient(sees(real), sees(fake), student, given(), jax.random.key(3))
    distance = np.abs(student - real)[:, 1:].mean(axis=(1, 2, 3, 4), keepdims=True)
    np.testing.assert_allclose(got[:, 1:], ((fake - real) / distance)[:, 1:], rtol=1e-4, atol=1e-4)
    assert (got[:, 0] == 0).all()


def test_where_the_teacher_agrees_to_the_last_bit_the_gradient_is_zero_and_never_nan():
    student = video(0)

    def agrees(x, level, given):  # exact where the division's rounding would not be
        return jnp.where(level[..., None, None, None] > 0, (x - student) / level[..., None, None, None], 0) * jnp.nan

    got = dmd.score_gradient(agrees, sees(video(1)), student, given(), jax.random.key(3))
    assert (got == 0).all()


def test_levels_are_one_a_clip_within_bounds_and_the_picture_is_clean():
    levels = []
    many = jnp.zeros((4000, 4, 1, 1, 1))
    dmd.critic_loss(sees(many, levels), many, given(4000), jax.random.key(0))
    (level,) = levels
    assert (level[:, 0] == 0).all() and (level[:, 1:] == level[:, 1:2]).all()
    drawn = np.sort(np.asarray(level[:, 1]))
    assert drawn[0] == np.float32(0.02) and drawn[-1] == np.float32(0.98)
    # Uniform, shifted by 5: the median of 5 u / (1 + 4 u) is 5/6.
    assert abs(np.median(drawn) - 5 / 6) < 0.02
    assert np.mean(drawn == drawn[-1]) == pytest.approx(1 - 0.98 / (5 - 4 * 0.98), abs=0.02)


def test_regression_is_the_squared_errors_gradient_on_what_counts_but_the_picture():
    video, clip = jax.random.normal(jax.random.key(0), (2, 2, 6, 2, 2, 3))
    counted = jnp.array([[1, 1, 1, 1, 0, 0], [1, 0, 1, 0, 0, 1]], bool)
    these = (jnp.array([0, 0, 0, 1, 1]), jnp.array([1, 2, 3, 2, 5]))
    expected = jax.grad(lambda x: ((x - clip)[these] ** 2).sum() / 2)(video)
    np.testing.assert_array_equal(dmd.regression_gradient(video, clip, counted), expected)


def test_guidance_extrapolates_from_the_model_without_text():
    def model(x, level, given):
        return x + given.text[:, :, :, None, None] * 2 + given.actions.mean() + 3

    x, level = video(), jnp.ones((3, 4))
    got = dmd.guided(model, 4.0)(x, level, given())
    np.testing.assert_allclose(got, x + 3 + 4 * 2, rtol=1e-6)
    np.testing.assert_allclose(dmd.guided(model, 1.0)(x, level, given()), model(x, level, given()), rtol=1e-6)


def test_critic_that_sees_the_students_video_has_no_loss_and_the_picture_none_at_all():
    student = video(0)
    assert dmd.critic_loss(sees(student), student, given(), jax.random.key(1)) < 1e-8
    other = student.at[:, 0].add(100.0)
    assert dmd.critic_loss(sees(other), student, given(), jax.random.key(1)) < 1e-8
    assert dmd.critic_loss(sees(student.at[:, 1].add(1.0)), student, given(), jax.random.key(1)) > 0.1


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
        score = dmd.score_gradient(gaussian(real_mean, real_std), critic, made, given(256), keys[1])
        return theta - 0.05 * vjp(score / score.size)[0]

    theta = jnp.array([-1.0, 0.5])
    for i in range(600):
        theta = step(theta, jax.random.key(i))
    np.testing.assert_allclose([theta[0], jnp.exp(theta[1])], [real_mean, real_std], atol=0.1)


def moving(seed=0):
    """Clips whose content drifts and moves, as under a camera."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.normal(scale=0.3, size=(4, 12, 8, 8, 4)), axis=1)
    return jnp.asarray(path + rng.normal(size=(4, 1, 8, 8, 4)), jnp.float32)


def test_clips_like_the_real_ones_pass():
    measures = collapse.measure(moving(1), moving(2))
    assert set(measures) == set(collapse.LIMITS)
    assert all(0.5 < value < 2 for value in measures.values())
    collapse.check({name: float(value) for name, value in measures.items()} | {"loss": 1e9})
    assert all(abs(float(value) - 1) < 1e-6 for value in collapse.measure(moving(1), moving(1)).values())


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("dynamic_degree", lambda x: jnp.broadcast_to(x[:, 1:2], x.shape)),
        ("saturation", lambda x: 3 * x),
        ("drift", lambda x: x + 0.5 * jnp.arange(x.shape[1])[:, None, None, None]),
        ("detail", lambda x: jnp.broadcast_to(x.mean(axis=(2, 3), keepdims=True), x.shape)),
    ],
)
def test_collapse_is_named(name, broken):
    measures = {key: float(value) for key, value in collapse.measure(broken(moving(1)), moving(2)).items()}
    healthy = {key: 1.0 for key in collapse.LIMITS}
    with pytest.raises(collapse.Collapse, match=rf"the student has collapsed: {name} of its video is .* times"):
        collapse.check(healthy | {name: measures[name]})


def test_a_measure_that_is_no_number_is_collapse():
    with pytest.raises(collapse.Collapse, match="detail of its video is nan times"):
        collapse.check({key: 1.0 for key in collapse.LIMITS} | {"detail": float("nan")})
