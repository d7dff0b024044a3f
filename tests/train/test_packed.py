"""The packed hybrid-forcing pass: who sees whom, against a literal mask, and against the stream it trains for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import DiTConfig, MemoryConfig, RelicConfig, StreamConfig, TextConfig
from relic_jax.memory.layout import layout
from relic_jax.models import rope
from relic_jax.models.dit import DiT
from relic_jax.models.module import init
from relic_jax.train import packed
from relic_jax.train.causal import levels

DIT = DiTConfig(dim=48, ffn_dim=64, heads=2, layers=2, text_len=4, text_dim=8, cond_dim=8, freq_dim=16)
LATENTS, BLOCK, WINDOW = 8, 2, 4  # four blocks, two of them noisy


def config(mode="relic"):
    return dataclasses.replace(
        RelicConfig.tiny(),
        dit=DIT,
        text=dataclasses.replace(TextConfig.tiny(), dim=8, length=4),
        memory=MemoryConfig(mode=mode, window=WINDOW, horizon=LATENTS, schedule=(1, 4, 2)),
        stream=StreamConfig(block=BLOCK),
    )


def inputs():
    keys = iter(jax.random.split(jax.random.key(0), 9))

    def normal(*shape):
        return jax.random.normal(next(keys), (2, *shape))

    params = init(DiT, DIT, next(keys))
    for name in ("action", "pose"):
        door = params["blocks"][name]["proj"]
        door["kernel"] = 0.3 * jax.random.normal(next(keys), door["kernel"].shape)
    level = jnp.repeat(jax.random.uniform(next(keys), (2, 2)), BLOCK, axis=1)
    return params, dict(
        latents=normal(LATENTS, 8, 12, 16),
        noisy=normal(WINDOW, 8, 12, 16),
        level=level,
        text=normal(4, 8),
        actions=normal(LATENTS, 52),
        poses=normal(LATENTS, 48),
        clean_blocks=jnp.array([1, 2]),
    )


velocity = jax.jit(packed.noisy_velocity, static_argnums=1)


def test_mask_is_the_literal_one_of_the_specification(monkeypatch):
    """Two clean blocks of 26 and 30 tokens, two noisy ones of 48; sample 0 sees one clean block, sample 1 both."""
    cfg = config()
    params, x = inputs()
    ours = velocity(params, cfg, **x)
    # Rows: the block of the query; columns: that of the key. c0 c1 are clean, n0 n1 noisy.
    blocks = {
        #             c0 c1 n0 n1
        0: np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]),  # clean_blocks = 1: c1 is not its past
        1: np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]),  # clean_blocks = 2
    }
    sizes = [p.count for p in layout(cfg).phases[:2]] + [2 * 24] * 2
    assert sizes == [24 + 2, 6 + 24, 48, 48]
    mask = np.stack([np.repeat(np.repeat(blocks[b], sizes, 0), sizes, 1) for b in (0, 1)]).astype(bool)

    def dense(angles, *_):
        def attend(q, k, v, _):
            q, k = rope.rotate(q, angles), rope.rotate(k, angles)
            logits = jnp.einsum("bnkd,bskd->bkns", q, k) * DIT.head_dim**-0.5
            weights = jax.nn.softmax(jnp.where(mask[:, None], logits, -jnp.inf))
            return jnp.einsum("bkns,bskd->bnkd", weights, v), None

        return attend

    monkeypatch.setattr(packed, "_attend", dense)
    literal = packed.noisy_velocity(params, cfg, **x)
    np.testing.assert_allclose(ours, literal, atol=2e-5)


@pytest.mark.parametrize("mode", ["relic", "full", "window"])
def test_past_is_seen_and_future_is_not(mode):
    cfg = config(mode)
    params, x = inputs()
    if mode == "window":
        x["clean_blocks"] = jnp.zeros((2,), int)
    base = velocity(params, cfg, **x)

    def changed(name, where):
        other = velocity(params, cfg, **x | {name: x[name].at[where].add(1.0)})
        return jnp.abs(other - base).max(axis=(0, 2, 3, 4)) > 1e-5, jnp.abs(other - base).max(axis=(1, 2, 3, 4)) > 1e-5

    by_latent, _ = changed("noisy", np.s_[:, BLOCK:])  # the last block
    assert by_latent.tolist() == [False, False, True, True]
    by_latent, _ = changed("noisy", np.s_[:, :BLOCK])
    assert by_latent.all()
    _, by_sample = changed("latents", np.s_[:, 2:4])  # block 1: past of sample 1 alone
    assert by_sample.tolist() == [False, mode != "window"]
    _, by_sample = changed("latents", np.s_[:, 4:])  # never clean past of anyone
    assert by_sample.tolist() == [False, False]


def test_levels_are_shared_by_a_block_and_often_nearly_clean_before_the_last():
    level = np.asarray(levels(jax.random.key(0), 4000, 3, 2, 0.15, 5.0))
    assert level.shape == (4000, 6)
    assert (level[:, 0::2] == level[:, 1::2]).all()
    nearly_clean = (level[:, :4] <= 0.15).all(1)
    assert 0.45 < nearly_clean.mean() < 0.55
    assert (level[:, 4:] > 0.15).mean() > 0.9 and level.max() <= 1
