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


def fading(clip, share=0.7, later=(0.7, 0.4, 0.3)):
    """A clip whose first span of 4 latents keeps `share` of its amplitude, and the later ones what `later` says."""
    amplitude = jnp.repeat(jnp.array([share, *later]), 4)
    return clip * amplitude[None, :, None, None, None]


def energy(video):
    """Of each span of 4 latents but the picture."""
    return jnp.stack([(video[:, max(4 * i, 1) : 4 * i + 4] ** 2).mean() for i in range(video.shape[1] // 4)])


def test_a_video_as_faint_from_beginning_to_end_is_steady_and_one_that_fades_is_not():
    clip = jax.random.normal(jax.random.key(0), (2, 17, 3, 4, 5))  # a latent is left over
    clip = clip.at[:, ::4].set(0)
    steady = fading(clip[:, :16], later=(0.7, 0.7, 0.7))
    faded = jnp.concatenate([fading(clip[:, :16]), clip[:, 16:]], axis=1)
    gradient = dmd.steadiness_gradient(faded, clip, 4)
    still = dmd.steadiness_gradient(steady, clip[:, :16], 4)
    assert jnp.abs(still).max() < 0.01 * jnp.abs(gradient).max()
    assert (gradient[:, 0] == 0).all() and (gradient[:, 16:] == 0).all()
    along = jnp.stack([(gradient * faded)[:, 4 * i : 4 * i + 4].sum() for i in range(4)])
    assert along[3] < along[2] < 0 and abs(along[0]) < 1e-3 * abs(along[2])
    assert abs(along[1]) < 0.2 * abs(along[2])  # its last latent is where the change to the next span begins


def test_axes_count_alike_or_by_what_they_carry():
    clip = jax.random.normal(jax.random.key(1), (2, 16, 12, 12, 2)) * jnp.array([3.0, 1.0])

    def ratio(by_size):
        along = (dmd.steadiness_gradient(fading(clip), clip, 4, by_size) * fading(clip)).sum((0, 1, 2, 3))
        return along[0] / along[1]

    np.testing.assert_allclose([ratio(0.0), ratio(0.5), ratio(1.0)], [1, 1.4 / 0.6, 9], rtol=0.1)


def test_level_a_video_keeps_what_its_first_span_has_whatever_the_clips_do():
    steady = jax.random.normal(jax.random.key(1), (2, 16, 12, 12, 2))
    clip = fading(steady, 1.0)  # clips that have less and less to show
    for video, level in ((0.7 * clip, False), (0.7 * steady, True)):
        along = {of: (dmd.steadiness_gradient(video, clip, 4, level=of) * video)[:, 8:].sum() for of in (True, False)}
        assert abs(along[level]) < 0.05 * abs(along[not level])
        assert along[True] < along[False]  # followed, the video keeps more


def test_following_steadiness_gives_the_later_spans_the_firsts_share_again():
    clip = jax.random.normal(jax.random.key(1), (2, 16, 3, 4, 5))
    step = jax.jit(lambda x: x - 0.02 * dmd.steadiness_gradient(x, clip, 4))
    video = fading(clip)
    for _ in range(100):
        video = step(video)
    np.testing.assert_allclose((energy(video) / energy(clip))[1:], 0.49, rtol=0.1)
    np.testing.assert_array_equal(video[:, :3], fading(clip)[:, :3])


def test_one_span_has_nothing_to_be_steady_to_and_a_blank_video_has_a_finite_gradient():
    clip = jax.random.normal(jax.random.key(2), (1, 7, 2, 2, 3))
    assert (dmd.steadiness_gradient(0.5 * clip, clip, 4) == 0).all()
    assert jnp.isfinite(dmd.steadiness_gradient(jnp.zeros_like(clip), clip, 2)).all()


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
