"""The replayed gradient against that of the whole rollout; memory against the number of blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT
from relic_jax.stream import rollout as stream
from relic_jax.train import replay
from tests.train.encoded import DIT, model, random_params

pytestmark = pytest.mark.usefixtures("compile_once")

BLOCKS = 6
BATCH = 2

roll_out = jax.jit(replay.roll_out, static_argnames="cfg")
replay_gradient = jax.jit(replay.replay_gradient, static_argnames=("cfg", "checkpoint"))


@pytest.fixture(scope="module")
def params():
    return random_params(DiT, DIT)


def conditions(length):
    rng = np.random.default_rng(1)
    text, actions, poses = (
        jnp.asarray(rng.normal(size=(BATCH, *shape)), jnp.float32) for shape in ((4, 8), (length, 52), (length, 48))
    )
    image = jnp.asarray(rng.normal(size=(BATCH, 4, 6, 4)), jnp.float32)
    return image, Conditions(text, actions, poses, jnp.array([1.0, 0.0]))


@jax.jit(static_argnames="cfg")
def whole_gradient(params, cfg, image, given, key, exit_step, score_grads):
    """By one differentiation of the rollout from noise on; only the last evaluation of each block has gradient."""

    def loss(p):
        def block(state, conditions):
            noisy, _ = stream.denoise(params, cfg, state, conditions, exit_step)
            clean, _ = stream.predict(p, cfg, state, noisy, exit_step, conditions)
            return stream.write(params, cfg, state, jax.lax.stop_gradient(clean), conditions), clean

        start = stream.start(cfg, image, given.text, key, given.pose_weight)
        clean = stream.scan_blocks(cfg, block, start, given)[1]
        return (score_grads * clean).sum(), clean

    return jax.grad(loss, has_aux=True)(params)


def largest_error(got, want):
    """Largest deviation of any parameter's gradient, relative to that gradient's largest entry."""
    errors = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max()), got, want)
    return max(jax.tree.leaves(errors))


COVERING = [("relic", "latent", 2), ("relic", "kv", 1), ("full", "latent", 4), ("window", "latent", 2)]
ALL = [(*kind, block) for kind in [*{c[:2]: 0 for c in COVERING}] for block in (1, 2, 4)]
CASES = COVERING + [pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in COVERING]


@pytest.mark.parametrize(("mode", "compress", "block"), CASES)
def test_replay_is_the_gradient_of_the_whole_rollout_at_every_exit_step(params, mode, compress, block):
    cfg = model(mode, compress, block)
    image, given = conditions(BLOCKS * block)
    for exit_step in range(4):
        key = jax.random.key(exit_step)
        rollout = roll_out(params, cfg, image, given, key, jnp.int32(exit_step))
        score_grads = jax.random.normal(jax.random.key(9), rollout.clean.shape)
        gradient, replayed = replay_gradient(params, cfg, rollout, score_grads)
        np.testing.assert_array_equal(replayed, rollout.clean)
        expected, clean = whole_gradient(params, cfg, image, given, key, jnp.int32(exit_step), score_grads)
        np.testing.assert_allclose(rollout.clean, clean, atol=1e-4)
        assert largest_error(gradient, expected) < 1e-5
