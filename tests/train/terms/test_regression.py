"""Regression to the clip: its gradient, which latents count, which of them show what has been shown before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError
from relic_jax.train import terms
from relic_jax.train.replay import Rollout
from relic_jax.train.terms import regression
from tests.train import encoded

STRIDE = 4


def turning(degrees):
    """A clip whose camera stands still and looks at these angles, one a frame."""
    angle = np.deg2rad(np.asarray(degrees, np.float32))
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rotations = np.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], -1).reshape(-1, 3, 3)
    return {"rotations": rotations, "positions": np.zeros((len(angle), 3), np.float32), "unit": np.float32(0.1)}


def moving(metres, unit=0.1):
    """A clip whose camera looks ahead and stands at these places on a line, one a frame."""
    positions = np.pad(np.asarray(metres, np.float32)[:, None], ((0, 0), (0, 2)))
    rotations = np.broadcast_to(np.eye(3, dtype=np.float32), (len(positions), 3, 3))
    return {"rotations": rotations, "positions": positions, "unit": np.float32(unit)}


def found(clip, horizon=80, first=80):
    batch = {name: jnp.asarray(x)[None] for name, x in clip.items()}
    return np.asarray(regression.revisits(batch, STRIDE, horizon, first))[0]


def test_a_way_back_is_a_revisit_once_its_place_was_left_long_enough_ago():
    out = np.arange(41)
    angles = 2.0 * np.concatenate([out, out[-2::-1]])  # 41 frames out, 40 back: frame 40 + i looks where 40 - i did
    frames = np.arange(0, 81, STRIDE)
    # Frame f looks where 80 - f did, and within 3 degrees of where 79 - f did: the earliest one that counts.
    expected = frames - (79 - frames) >= regression.AGO
    np.testing.assert_array_equal(found(turning(angles)), expected & (frames > 40))


def test_new_places_are_none_whether_turning_or_moving():
    assert not found(turning(2.0 * np.arange(121))).any()
    assert not found(moving(0.1 * np.arange(121))).any()


def test_a_place_is_near_by_the_clips_own_step():
    out = 0.1 * np.arange(41)
    there_and_beside = np.concatenate([out, out[::-1] + 0.2])
    assert not found(moving(there_and_beside[:60])).any()
    assert found(moving(there_and_beside, unit=1.0))[-1]


def test_standing_still_comes_to_count_as_known():
    np.testing.assert_array_equal(found(moving(np.zeros(81))), np.arange(0, 81, STRIDE) >= regression.AGO)


def test_what_memory_has_dropped_is_not_known():
    there_and_elsewhere = np.concatenate([np.zeros(1), np.full(79, 9.0), np.zeros(1)])
    assert found(moving(there_and_elsewhere), horizon=21)[-1]
    assert not found(moving(there_and_elsewhere), horizon=20)[-1]


def test_what_was_first_seen_late_may_have_been_shown_otherwise():
    elsewhere_then_there_twice = np.concatenate([np.full(20, 9.0), np.zeros(21), np.full(20, 5.0), np.zeros(20)])
    assert found(moving(elsewhere_then_there_twice), first=6)[-1]  # the sixth latent ends with frame 20
    assert not found(moving(elsewhere_then_there_twice), first=5)[-1]


def test_regression_is_the_squared_errors_gradient_on_what_counts_but_the_picture():
    video, clip = jax.random.normal(jax.random.key(0), (2, 2, 6, 2, 2, 3))
    counted = jnp.array([[1, 1, 1, 1, 0, 0], [1, 0, 1, 0, 0, 1]], bool)
    these = (jnp.array([0, 0, 0, 1, 1]), jnp.array([1, 2, 3, 2, 5]))
    expected = jax.grad(lambda x: ((x - clip)[these] ** 2).sum() / 2)(video)
    np.testing.assert_array_equal(regression.regression_gradient(video, clip, counted), expected)


def sample(latents=6):
    """Two clips whose camera stands still, and a student's video of them."""
    clip, made = jax.random.normal(jax.random.key(1), (2, 2, latents, 2, 2, 3))
    frames = STRIDE * (latents - 1) + 1
    still = {
        "latents": clip,
        "rotations": jnp.broadcast_to(jnp.eye(3), (2, frames, 3, 3)),
        "positions": jnp.zeros((2, frames, 3)),
        "unit": jnp.ones((2,)),
    }
    blocks = made.reshape(2, latents // 2, 2, 2, 2, 3).swapaxes(0, 1)
    rollout = Rollout(blocks, blocks, encoded.conditions(2, latents), jnp.int32(0))
    return terms.Sample(rollout, None, still), made


def test_the_term_weighs_the_error_of_the_first_latents():
    given, made = sample()
    term = regression.Term(regression.Config(weight=3.0, latents=3), encoded.model())
    gradient, scalars = term.gradient(given, {}, jax.random.key(0))
    error = (made - given.clips["latents"])[:, 1:3]
    np.testing.assert_allclose(gradient[:, 1:3], 3 * error, rtol=1e-6)
    assert not gradient[:, 0].any() and not gradient[:, 3:].any()
    np.testing.assert_allclose(scalars["regression"], (error**2).sum() / 2 / made[:, 1:].size, rtol=1e-5)


def test_revisits_count_beside_the_first_latents(monkeypatch):
    monkeypatch.setattr(regression, "AGO", 16)  # these clips are shorter than what counts as long ago
    given, _ = sample()
    term = regression.Term(regression.Config(weight=1.0, latents=2, revisits=6), encoded.model())
    # Latents 0 and 1 come first; from latent 4 on the camera has been there long enough ago.
    np.testing.assert_array_equal(term.known(given.clips), jnp.array([[1, 1, 0, 0, 1, 1]] * 2, bool))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weight": 0.0}, "config.terms.regression.weight=0.0 must be above 0"),
        ({"weight": -1.0}, "config.terms.regression.weight=-1.0 must be above 0"),
        ({"latents": 0}, "config.terms.regression.latents=0 must be at least 1"),
        ({"revisits": -1}, "config.terms.regression.revisits=-1 must be at least 0"),
    ],
)
def test_bad_fields_are_named(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        regression.Config(**({"weight": 1.0, "latents": 3} | fields))
