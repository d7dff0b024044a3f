"""A sub-clip of a long rollout is a clip of its own: its poses, its picture, and its share of the gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.camera import actions as camera_actions
from relic_jax.models import vae
from relic_jax.train.terms import score
from tests.train import encoded

pytestmark = pytest.mark.usefixtures("compile_once")

MODEL = encoded.model()
LENGTH, LATENTS, STRIDE, UNIT = 13, 5, 4, 0.25


@pytest.fixture(scope="module")
def batch():
    """Two clips with random moves and turns."""
    rng = np.random.default_rng(0)
    actions = np.zeros((2, STRIDE * (LENGTH - 1) + 1, 13), np.float32)
    actions[..., :12] = rng.normal(size=(2, actions.shape[1], 12)).clip(0)
    actions[:, 0] = camera_actions.static_actions(1)
    start = jnp.tile(jnp.eye(3), (2, 1, 1)), jnp.zeros((2, 3))
    rotations, positions = camera_actions.advance(*start, jnp.asarray(actions), UNIT)
    return {
        "actions": jnp.asarray(actions),
        "rotations": rotations,
        "positions": positions,
        "unit": jnp.full((2,), UNIT),
        "text": jnp.ones((2, 4, 8)),
    }


def test_its_actions_lead_along_its_poses_from_the_origin(batch):
    made = score.sub_clip(batch, jnp.int32(4), LATENTS, MODEL.vae)
    assert made["actions"].shape == (2, 17, 13)
    np.testing.assert_array_equal(made["actions"][:, 0], np.tile(camera_actions.static_actions(1), (2, 1)))
    np.testing.assert_array_equal(made["actions"][:, 1:], batch["actions"][:, 17:33])
    origin = jnp.tile(jnp.eye(3), (2, 1, 1)), jnp.zeros((2, 3))
    rotations, positions = camera_actions.advance(*origin, made["actions"], UNIT)
    np.testing.assert_allclose(made["rotations"], rotations, atol=1e-5)
    np.testing.assert_allclose(made["positions"], positions, atol=1e-5)
    assert made["unit"] is batch["unit"] and made["text"] is batch["text"]


def test_the_first_sub_clip_is_how_the_clip_begins(batch):
    made = score.sub_clip(batch, jnp.int32(0), LATENTS, MODEL.vae)
    for name in ("actions", "rotations", "positions"):
        np.testing.assert_allclose(made[name], batch[name][:, :17], atol=1e-6)


@functools.cache
def videos():
    """Latents of two videos, a decoder of them, and the frames it shows."""
    params = encoded.random_params(vae.VAE, MODEL.vae)
    whole = jax.random.normal(jax.random.key(0), (2, LENGTH, *MODEL.latent_size, 4))
    return params, whole, jax.jit(lambda x: vae.decode_video(params, MODEL.vae, x))(whole)


@pytest.mark.parametrize("start", [4, 8])
def test_its_picture_is_the_frame_before_it_encoded_as_a_picture(start, monkeypatch):
    monkeypatch.setattr(score, "CONTEXT", start)  # all there is before: nothing is left out
    params, whole, frames = videos()
    made = score.sub_video(params, MODEL.vae, whole, jnp.int32(start), LATENTS)
    np.testing.assert_array_equal(made[:, 1:], whole[:, start + 1 : start + LATENTS])
    shown = frames[:, STRIDE * start][:, None]
    np.testing.assert_allclose(made[:, :1], vae.encode_video(params, MODEL.vae, shown), atol=1e-4)


def test_at_the_beginning_the_picture_is_the_clips_own():
    params, whole, _ = videos()
    made = score.sub_video(params, MODEL.vae, whole, jnp.int32(0), LATENTS)
    np.testing.assert_array_equal(made, whole[:, :LATENTS])


def test_sub_clips_begin_on_a_grid_and_end_within_the_clip():
    starts = {int(score.draw_start(jax.random.key(i), LENGTH, LATENTS)) for i in range(40)}
    assert starts == {0, 4, 8}
    assert {int(score.draw_start(jax.random.key(i), LENGTH, LENGTH)) for i in range(5)} == {0}


def test_the_mean_of_a_gradient_stays_over_the_whole_video():
    gradient = jnp.ones((1, LATENTS, 1, 1, 2)).at[:, 0].set(0)
    whole = score.over_whole_video(gradient, jnp.int32(4), LENGTH)
    assert not whole[:, :5].any() and not whole[:, 9:].any()
    np.testing.assert_allclose(whole[:, 1:].mean(), gradient[:, 1:].mean())
