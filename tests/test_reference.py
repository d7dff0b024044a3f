"""The stream against the reference, which is written from the specification alone (`tests/reference.py`)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax import rng
from relic_jax.config import DiTConfig, MemoryConfig, RelicConfig, StreamConfig, TextConfig, VAEConfig, VideoConfig
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.stream import rollout
from tests import reference

pytestmark = pytest.mark.usefixtures("compile_once")

BATCH = 2
CFG = RelicConfig(
    # 5 x 7 tokens: neither 2 nor 4 divides them.
    video=VideoConfig(height=40, width=56),
    dit=DiTConfig(dim=24, ffn_dim=40, heads=2, layers=2, text_len=5, text_dim=12, cond_dim=10, freq_dim=16),
    vae=VAEConfig(base_dim=4, multipliers=(1, 1, 1), temporal_down=(True, True)),
    text=TextConfig(vocab=8, dim=12, attention_dim=12, ffn_dim=12, heads=2, layers=1, length=5),
    memory=MemoryConfig(window=4, horizon=10, schedule=(1, 4, 2)),
    stream=StreamConfig(block=2),
    precision=RelicConfig.tiny().precision,
).stretched(40)
KINDS = {
    "relic": {},
    "relic_kv": {"compress": "kv"},
    "full": {"mode": "full"},
    "window": {"mode": "window"},
    "picture_leaves": {"keep_picture": False},
}


def config(block=2, window=4, horizon=10, **memory):
    return dataclasses.replace(
        CFG,
        memory=dataclasses.replace(CFG.memory, window=window, horizon=horizon, **memory),
        stream=dataclasses.replace(CFG.stream, block=block),
    )


def weights(cfg):
    """Parameters none of which is zero: what enters through a zero-initialised layer would not be seen."""
    leaves, tree = jax.tree.flatten(module.init(DiT, cfg.dit, jax.random.key(0)))
    rand = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [x + 0.15 * rand.standard_normal(x.shape).astype(np.float32) for x in leaves])


def keys_held(frames, seed):
    """Several keys at once, on every axis, now and then none."""
    rand = np.random.default_rng(seed)
    actions = rand.uniform(0, 1.5, (frames, 13)) * (rand.random((frames, 13)) < 0.3)
    return actions.astype(np.float32)


def both(cfg, blocks):
    """Latents [blocks, B, L, H, W, C] of the stream and of the reference."""
    rand = np.random.default_rng(1)
    rows, columns = cfg.latent_size
    picture = rand.standard_normal((BATCH, rows, columns, 16)).astype(np.float32)
    text = rand.standard_normal((BATCH, 5, 12)).astype(np.float32)
    params, block, memory = weights(cfg), cfg.stream.block, cfg.memory
    schedule = {"relic": memory.schedule, "full": (1,), "window": (1,)}[memory.mode]
    spec = reference.Model(
        heads=cfg.dit.heads,
        patch=cfg.dit.patch,
        block=block,
        window=memory.window,
        horizon=memory.window if memory.mode == "window" else memory.horizon,
        schedule=schedule,
        freq_dim=cfg.dit.freq_dim,
        timesteps=cfg.stream.timesteps,
        translation_unit=cfg.stream.translation_unit,
        rotation_unit=cfg.stream.rotation_unit,
        compress="kv" if memory.mode == "full" else memory.compress,  # what the window held is kept as it is
        keep_picture=memory.keep_picture and memory.mode != "window",
        stretch=cfg.dit.yarn_scale,
    )
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    stream = reference.Stream(spec, exact, picture.astype(np.float64), text.astype(np.float64))
    state = rollout.start(cfg, jnp.asarray(picture), jnp.asarray(text), jax.random.key(3))
    step = jax.jit(lambda state, actions: rollout.step(params, cfg, state, actions))
    ours, expected = [], []
    for number in range(blocks):
        actions = keys_held(4 * block, number)
        noise = [
            jax.random.normal(rng.numbered(jax.random.key(3), number, i), (BATCH, block, rows, columns, 16))
            for i in range(len(spec.timesteps))
        ]
        state, latents = step(state, jnp.broadcast_to(actions, (BATCH, *actions.shape)))
        ours.append(np.asarray(latents))
        expected.append(stream.step(actions.astype(np.float64), [np.asarray(x, np.float64) for x in noise]))
    return np.stack(ours), np.stack(expected)


def check(cfg, blocks):
    ours, expected = both(cfg, blocks)
    assert np.abs(expected).max() < 50  # no runaway, whose error would say nothing
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_memory(kind):
    """Past the horizon: 10 latents are remembered, 16 are shown."""
    check(config(**KINDS[kind]), blocks=8)


@pytest.mark.parametrize(("block", "blocks"), [(1, 10), (4, 6)])
def test_blocks_of_one_and_of_four(block, blocks):
    check(config(block, window=2 * block, horizon=2 * block + 12 if block == 4 else 5), blocks)
