"""The examples do what they say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from examples import loss_term, stream, wan_weights
from relic_jax.camera import actions as camera_actions
from relic_jax.config import from_config_dict
from relic_jax.train import terms
from relic_jax.train.distill import DistillConfig
from relic_jax.train.replay import Rollout
from tests.parallel.meshes import CFG, untyped
from tests.train import encoded
from tests.weights_convert import sources


def test_stream_leaves_two_videos_and_a_session(tmp_path, capsys):
    stream.main(tmp_path, keys="w-12")
    assert {path.name for path in tmp_path.iterdir()} == {"walk.mp4", "two_futures.mp4", "walk.safetensors"}
    assert capsys.readouterr().out.startswith("29 frames; the camera stands ")


def test_loss_term_is_the_gradient_of_what_it_says():
    rng, latents = np.random.default_rng(0), 6
    frames = 4 * (latents - 1) + 1
    actions = np.tile(camera_actions.static_actions(frames), (2, 1, 1))
    actions[1, 9:] = 0  # the second clip moves from latent 3 on
    video = jnp.asarray(rng.normal(size=(2, latents, 4, 6, 4)), jnp.float32)
    blocks = video.reshape(2, latents // 2, 2, 4, 6, 4).swapaxes(0, 1)
    rollout = Rollout(blocks, blocks, encoded.conditions(2, latents), jnp.int32(0))
    term = loss_term.Term(loss_term.Config(weight=3.0), encoded.model())
    sample = terms.Sample(rollout, None, {"actions": jnp.asarray(actions)})
    gradient, scalars = term.gradient(sample, {}, jax.random.key(0))

    def loss(x):
        change = x - jax.lax.stop_gradient(jnp.roll(x, 1, axis=1))
        return 3.0 * ((change[0, 1:] ** 2).sum() + (change[1, 1:3] ** 2).sum()) / 2

    np.testing.assert_allclose(gradient, jax.grad(loss)(video), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scalars["still"], loss(video) / 3 / video[:, 1:].size, rtol=1e-5)


def test_a_config_that_names_it_describes_a_run():
    cfg = from_config_dict(DistillConfig, loss_term.get_config())
    assert set(cfg.terms) == {"score", "examples/loss_term"} and cfg.terms["examples/loss_term"].weight == 0.1
    assert from_config_dict(DistillConfig, dataclasses.asdict(cfg)) == cfg
    assert isinstance(terms.make(cfg.terms, cfg.model)["examples/loss_term"], loss_term.Term)


def test_wan_weights_become_a_relic_that_is_wan_at_first(tmp_path):
    sources.write_source(tmp_path / "wan")
    params = wan_weights.convert(tmp_path / "wan", tmp_path / "relic", dit=sources.CFG)
    assert wan_weights.largest_change_by_keys(params, sources.CFG) == 0
    with untyped():
        text = wan_weights.plan(CFG, "seq=2", devices=jax.devices()[:2])
    assert "stream on 2 x NVIDIA H100" in text and "fits" in text
