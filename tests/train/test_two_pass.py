"""Hybrid forcing where keys and values are pooled, and the packed pass, against the stream that they train for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.memory.layout import layout
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT
from relic_jax.stream import rollout
from relic_jax.train import two_pass
from relic_jax.train.causal import hybrid_forcing
from tests.train.encoded import DIT, model, random_params

pytestmark = pytest.mark.usefixtures("compile_once")

BATCH, BLOCK, LATENTS = 2, 2, 10  # five blocks, two of them noisy
TIMESTEP = 2  # the third of four

write = jax.jit(rollout.write, static_argnums=1)
predict = jax.jit(rollout.predict, static_argnums=1)


@functools.partial(jax.jit, static_argnums=1)
def velocity(params, cfg, **inputs):
    return hybrid_forcing(cfg)(params, cfg, **inputs)


@pytest.fixture(scope="module")
def params():
    return random_params(DiT, DIT)


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(2)
    shapes = {"latents": (LATENTS, 4, 6, 4), "actions": (LATENTS, 52), "poses": (LATENTS, 48), "text": (4, 8)}
    made = {name: jnp.asarray(rng.normal(size=(BATCH, *shape)), jnp.float32) for name, shape in shapes.items()}
    return {"latents": made.pop("latents"), "conditions": Conditions.of(**made)}


def unpooled(mode):
    """Memory that keeps every token, by the code of one kind of compression or the other."""
    cfg = model(mode, "kv" if mode == "relic" else "latent")
    return dataclasses.replace(cfg, memory=dataclasses.replace(cfg.memory, schedule=(1,)))


def stream_of(params, cfg, clip, blocks):
    """The stream's state once so many blocks of the clip have been shown."""
    state = rollout.start(cfg, clip["latents"][:, 0], clip["conditions"].text, jax.random.key(0))
    for i in range(blocks):
        block = slice(i * BLOCK, (i + 1) * BLOCK)
        state = write(params, cfg, state, clip["latents"][:, block], clip["conditions"].at(block))
    return state


def test_memory_of_the_first_pass_is_the_streams_cache(params, clip):
    cfg = model("relic", "kv")
    lay, blocks = layout(cfg), 3
    clean = slice(blocks * BLOCK)
    k, v, ends = two_pass.pooled_memory(params, cfg, clip["latents"][:, clean], clip["conditions"].at(clean))
    assert ends.tolist() == [0, 6 + 1, 7 + 2 + 6, 15 + 1 + 2]  # 2 x 3 tokens a latent, pooled by 1, 4, 2, 1, 4, 2
    state = stream_of(params, cfg, clip, blocks + lay.window_blocks)  # until all three have left the window
    for i in range(blocks):
        places = lay.picture + lay.phases[i].place[: lay.phases[i].count]
        for ours, cache in ((k, state.cache.k), (v, state.cache.v)):
            np.testing.assert_allclose(ours[:, :, ends[i] : ends[i + 1]], cache[:, :, places], atol=2e-5)


@pytest.mark.parametrize("mode", ["relic", "full"])
def test_last_noisy_block_is_the_streams_next_evaluation(params, clip, mode):
    """With nothing pooled and the noisy blocks before it clean, the last block stands where the stream would be."""
    cfg = unpooled(mode)
    clean_blocks = 2
    picked = slice(clean_blocks * BLOCK, (clean_blocks + 2) * BLOCK)
    noisy = clip["latents"][:, picked].at[:, BLOCK:].add(1.0)
    level = jnp.zeros((BATCH, 2 * BLOCK)).at[:, BLOCK:].set(cfg.stream.timesteps[TIMESTEP] / 1000)
    ours = velocity(params, cfg, noisy=noisy, level=level, clean_blocks=jnp.full((BATCH,), clean_blocks), **clip)
    state = stream_of(params, cfg, clip, clean_blocks + 1)
    last = slice((clean_blocks + 1) * BLOCK, (clean_blocks + 2) * BLOCK)
    conditions = clip["conditions"].at(last)
    _, expected = predict(params, cfg, state, noisy[:, BLOCK:], jnp.int32(TIMESTEP), conditions)
    np.testing.assert_allclose(ours[:, BLOCK:], expected, atol=5e-5)


def test_past_is_seen_and_future_is_not(params, clip):
    cfg = model("relic", "kv")
    noisy = jax.random.normal(jax.random.key(1), (BATCH, 2 * BLOCK, 4, 6, 4))
    level = jnp.full((BATCH, 2 * BLOCK), 0.5)

    @jax.jit
    def outputs(latents, noisy):
        x = clip | {"latents": latents}
        return hybrid_forcing(cfg)(params, cfg, noisy=noisy, level=level, clean_blocks=jnp.array([1, 3]), **x)

    base = outputs(clip["latents"], noisy)

    def changed(*inputs):
        return np.abs(outputs(*inputs) - base).max(axis=(2, 3, 4)) > 1e-5  # [sample, latent]

    second = changed(clip["latents"].at[:, 2:4].add(1.0), noisy)  # block 1: past of sample 1 alone
    assert second.tolist() == [[False] * 4, [True] * 4]
    assert not changed(clip["latents"].at[:, 6:].add(1.0), noisy).any()  # never anyone's past
    assert changed(clip["latents"], noisy.at[:, BLOCK:].add(1.0)).tolist() == [[False, False, True, True]] * 2
    assert changed(clip["latents"], noisy.at[:, :BLOCK].add(1.0)).all()


def test_first_pass_has_no_gradient(params, clip):
    """With one layer, all that a gradient of the weights could still come from is what the noisy blocks compute."""
    cfg = model("relic", "kv", dit=dataclasses.replace(DIT, layers=1))
    params = random_params(DiT, cfg.dit)
    clean = slice(3 * BLOCK)

    def total(params):
        k, v, _ = two_pass.pooled_memory(params, cfg, clip["latents"][:, clean], clip["conditions"].at(clean))
        return k.sum() + v.sum()

    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(params)))
