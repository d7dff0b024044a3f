import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.train.steadiness import Watch, moments_gradient, spectrum_gradient

# What rounding leaves: of the first span, moments count nothing, and the spectrum what is too much.
ROUNDING = {moments_gradient: 0.0, spectrum_gradient: 1e-4}
BOTH = pytest.mark.parametrize("gradient_of", [moments_gradient, spectrum_gradient])


def fading(clip, share=0.7, later=(0.7, 0.4, 0.3)):
    """A clip whose first span of 4 latents keeps `share` of its amplitude, and the later ones what `later` says."""
    amplitude = jnp.repeat(jnp.array([share, *later]), 4)
    return clip * amplitude[None, :, None, None, None]


def energy(video):
    """Of each span of 4 latents but the picture."""
    return jnp.stack([(video[:, max(4 * i, 1) : 4 * i + 4] ** 2).mean() for i in range(video.shape[1] // 4)])


@BOTH
def test_a_video_as_faint_from_beginning_to_end_is_steady_and_one_that_fades_is_not(gradient_of):
    clip = jax.random.normal(jax.random.key(0), (16, 17, 3, 4, 5))  # a latent is left over
    clip = clip.at[:, ::4].set(0)
    steady = fading(clip[:, :16], later=(0.7, 0.7, 0.7))
    faded = jnp.concatenate([fading(clip[:, :16]), clip[:, 16:]], axis=1)
    gradient = gradient_of(faded, clip, 4)
    still = gradient_of(steady, clip[:, :16], 4)
    assert jnp.abs(still).max() < 0.01 * jnp.abs(gradient).max()
    assert (gradient[:, 0] == 0).all() and (gradient[:, 16:] == 0).all()
    along = jnp.stack([(gradient * faded)[:, 4 * i : 4 * i + 4].sum() for i in range(4)])
    assert along[3] < along[2] < 0 and abs(along[0]) < 1e-3 * abs(along[2])
    assert abs(along[1]) < 0.2 * abs(along[2])  # its last latent is where the change to the next span begins


def test_axes_count_alike_or_by_what_they_carry():
    clip = jax.random.normal(jax.random.key(1), (2, 16, 12, 12, 2)) * jnp.array([3.0, 1.0])

    def ratio(by_size):
        along = (moments_gradient(fading(clip), clip, 4, by_size) * fading(clip)).sum((0, 1, 2, 3))
        return along[0] / along[1]

    np.testing.assert_allclose([ratio(0.0), ratio(0.5), ratio(1.0)], [1, 1.4 / 0.6, 9], rtol=0.1)


@BOTH
def test_both_pull_alike_on_what_fades_as_a_whole(gradient_of):
    """Scaled alike in all its numbers a video has log(share) in each: the sum of all weights is seen."""
    clip = jnp.tile(jax.random.normal(jax.random.key(1), (2, 1, 4, 6, 3)), (1, 16, 1, 1, 1))
    video = fading(clip, 1.0, (1.0, 1.0, 0.5))
    along = (gradient_of(video, clip, 4) * video)[:, 12:].sum()
    # d/d(log amplitude) of 5 weights x 3 axes x 2 clips x log(share)^2 / 2, share = amplitude^2, for 4 x 4 x 6 numbers
    expected = 5 * 3 * 2 * np.log(0.25) * 2 * 4 * 4 * 6
    np.testing.assert_allclose(along, expected, rtol=0.07)  # what is added to faint statistics takes 6 %


def wave(down, across, shape=(8, 12)):
    """A cosine wave of that many half-periods, of amplitude 1."""
    y, x = (np.cos(np.pi * k * (np.arange(n) + 0.5) / n) for k, n in zip((down, across), shape, strict=True))
    return jnp.asarray(np.outer(y, x)[..., None] / np.sqrt(np.mean(y**2) * np.mean(x**2)))


def test_ripples_dont_make_up_for_what_is_lost():
    """A later span has lost its walls and has checks of the same detail instead: moments see nothing missing."""
    keys = jax.random.split(jax.random.key(2), 2)
    walls = jax.random.normal(keys[0], (4, 16, 1, 1, 1)) * wave(2, 1)
    checks = 0.05 * jax.random.normal(keys[1], (4, 16, 1, 1, 1)) * wave(7, 11)
    clip = walls + checks
    later = jnp.arange(16)[:, None, None, None] >= 12
    video = jnp.where(later, 0.5 * walls + 12 * checks, clip)

    def along(gradient_of, part):
        return float((gradient_of(video, clip, 4, 1.0) * part)[:, 12:].sum())

    assert along(spectrum_gradient, walls) < 0 < along(spectrum_gradient, checks)  # more walls, fewer checks
    assert along(moments_gradient, checks) > 0
    assert abs(along(moments_gradient, walls)) < 0.5 * abs(along(spectrum_gradient, walls))


def test_no_wave_is_to_be_stronger_than_in_real_clips_not_even_in_the_first_span():
    clip = jax.random.normal(jax.random.key(3), (8, 16, 1, 1, 1)) * (wave(1, 0) + 0.1 * wave(7, 11))
    rippled = clip + 0.3 * jnp.sign(clip[..., :1, :1, :]) * wave(7, 11)
    gradient = spectrum_gradient(rippled, clip, 4, 0.5)
    steps = [(gradient * wave(*k))[:, 1:].sum((2, 3, 4)) for k in ((7, 11), (1, 0))]
    size = [jnp.abs(x).reshape(8, -1).mean() for x in steps]
    assert size[0] > 20 * size[1]
    assert (jnp.sign(steps[0]) == jnp.sign(clip[:, 1:, 0, 0, 0])).mean() > 0.95
    np.testing.assert_allclose(spectrum_gradient(clip, clip, 4), 0, atol=1e-3)


@BOTH
def test_each_clip_keeps_its_own_brightness(gradient_of):
    """One grows brighter as the other grows darker: on average nothing is lost, and both are pulled back."""
    clip = 1 + 0.3 * jax.random.normal(jax.random.key(4), (2, 16, 4, 6, 1))
    later = (jnp.arange(16) >= 12)[None, :, None, None, None]
    factor = jnp.sqrt(jnp.array([1.4, 0.6]))[:, None, None, None, None]
    video = jnp.where(later, factor * clip, clip)
    along = (gradient_of(video, clip, 4) * video)[:, 12:].sum((1, 2, 3, 4))
    assert along[0] > 0 > along[1]


@BOTH
def test_following_it_gives_the_later_spans_the_firsts_share_again(gradient_of):
    clip = jax.random.normal(jax.random.key(1), (2, 16, 3, 4, 5))
    step = jax.jit(lambda x: x - 0.02 * gradient_of(x, clip, 4))
    video = fading(clip)
    for _ in range(100):
        video = step(video)
    np.testing.assert_allclose((energy(video) / energy(clip))[1:], 0.49, rtol=0.1)
    np.testing.assert_allclose(video[:, :3], fading(clip)[:, :3], rtol=0, atol=ROUNDING[gradient_of])


@BOTH
def test_one_span_has_nothing_to_be_steady_to_and_a_blank_video_has_a_finite_gradient(gradient_of):
    clip = jax.random.normal(jax.random.key(2), (1, 7, 2, 2, 3))
    np.testing.assert_allclose(gradient_of(0.5 * clip, clip, 4), 0, atol=ROUNDING[gradient_of])
    assert jnp.isfinite(gradient_of(jnp.zeros_like(clip), clip, 2)).all()


SECOND = jnp.int32(1)  # evaluation


def watched(video, clip, **options):
    watch = Watch.of(clip, 4, options.pop("bands", 2), **options)
    return watch, watch.see(watch.start(3), video, clip, SECOND)


def test_running_means_are_of_all_rollouts_at_first_and_of_the_last_ones_then():
    clip = jax.random.normal(jax.random.key(5), (3, 16, 4, 6, 2))
    watch = Watch.of(clip, 4, 2)
    means, shares = watch.start(3), []
    for i in range(12):
        video = clip * (1 + 0.1 * i)
        shares.append((watch.log_powers(video) - watch.log_powers(clip)).mean(0))
        means = watch.see(means, video, clip, SECOND)
        if i == 4:
            np.testing.assert_allclose(means["share"][1], np.mean(shares, 0), atol=1e-5)
            tenth = means
    assert means["count"].tolist() == [0, 12, 0]
    assert (means["share"][0] == 0).all() and (means["share"][2] == 0).all()
    expected = np.mean(shares[:10], 0)
    for share in shares[10:]:
        expected = 0.9 * expected + 0.1 * np.asarray(share)
    np.testing.assert_allclose(means["share"][1], expected, atol=1e-5)
    assert tenth["count"][1] == 5


def test_the_means_gradient_is_that_of_half_the_weighted_square_of_what_is_missing():
    clip = jax.random.normal(jax.random.key(6), (1, 16, 4, 6, 2))
    video = fading(clip)
    watch, means = watched(video, clip, by_size=0.5)
    share = watch.log_powers(video)[0] - watch.log_powers(clip)[0]

    def loss(video):
        missing = (watch.log_powers(video) - watch.log_powers(clip))[0, 1] - share[0]
        return 0.5 * (watch.weights * missing**2).sum() * 3 * 4 * 4 * 6  # three later spans' numbers

    expected = jax.grad(loss)(video)
    np.testing.assert_allclose(watch.gradient(means, video, SECOND), expected, atol=1e-4 * jnp.abs(expected).max())
    assert (expected[:, :4] == 0).all()


def test_what_is_missing_on_average_is_asked_of_a_video_that_has_it():
    """Of 40 walks that lose a tenth, each has more or less to see later on: a batch of four often says the opposite."""
    keys = jax.random.split(jax.random.key(7), 3)
    amplitude = jnp.exp(0.5 * jax.random.normal(keys[0], (2, 40, 4))).repeat(4, axis=2)[..., None, None, None]
    clip, video = amplitude * jax.random.normal(keys[1], (2, 40, 16, 4, 6, 1))
    video *= jnp.where(jnp.arange(16) < 4, 1.0, 0.9)[:, None, None, None]
    batches = [(video[i : i + 4], clip[i : i + 4]) for i in range(0, 40, 4)]
    watch = Watch.of(clip, 4, 2)
    means = watch.start(3)
    for batch in batches:
        means = watch.see(means, *batch, SECOND)

    def more(gradient, made):
        return bool((gradient * made)[:, 4:].sum() < 0)

    of_batches = [more(spectrum_gradient(*batch, 4), batch[0]) for batch in batches]
    assert all(more(watch.gradient(means, made, SECOND), made) for made, _ in batches)
    assert not all(of_batches)


def test_the_means_ask_for_no_more_than_real_clips_have_in_any_span():
    clip = jax.random.normal(jax.random.key(8), (4, 16, 4, 6, 1))
    watch, means = watched(1.3 * clip, clip)
    too_much = watch.gradient(means, 1.3 * clip, SECOND)
    along = (too_much * clip).sum((0, 2, 3, 4))
    assert (along[1:] > 0).all() and along[0] == 0
    watch, means = watched(0.7 * clip, clip)
    as_much_less = watch.gradient(means, 0.7 * clip, SECOND)  # what is added to faint powers leaves something
    assert jnp.abs(as_much_less).max() < 0.02 * jnp.abs(too_much).max()
    assert jnp.isfinite(watch.gradient(means, 0 * clip, SECOND)).all()


def test_ripples_and_walls_are_in_different_bands():
    keys = jax.random.split(jax.random.key(9), 2)
    walls, checks = (
        jax.random.normal(k, (8, 16, 1, 1, 1)) * wave(*n) for k, n in zip(keys, ((2, 1), (7, 11)), strict=True)
    )
    clip = walls + 0.1 * checks
    video = jnp.where(jnp.arange(16)[:, None, None, None] >= 4, 0.7 * walls + 0.5 * checks, clip)
    watch, means = watched(video, clip, bands=4)
    gradient = watch.gradient(means, video, SECOND)[:, 4:]
    assert (gradient * walls[:, 4:]).sum() < 0 < (gradient * checks[:, 4:]).sum()
