"""The packed hybrid-forcing pass: who sees whom, against a literal mask, and against the stream it trains for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import DiTConfig, MemoryConfig, RelicConfig, StreamConfig, TextConfig
from relic_jax.memory.layout import layout
from relic_jax.models import module, rope
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT
from relic_jax.models.module import init
from relic_jax.rng import streams
from relic_jax.train import packed
from relic_jax.train.causal import levels

pytestmark = pytest.mark.usefixtures("compile_once")

DIT = DiTConfig(dim=48, ffn_dim=64, heads=2, layers=2, text_len=4, text_dim=8, cond_dim=8, freq_dim=16)
LATENTS, BLOCK, WINDOW = 8, 2, 4  # four blocks, two of them noisy


def config(mode="relic"):
    return dataclasses.replace(
        RelicConfig.tiny(),
        dit=DIT,
        text=dataclasses.replace(TextConfig.tiny(), dim=8, length=4),
        memory=MemoryConfig(mode=mode, window=WINDOW, horizon=WINDOW + 6, schedule=(1, 4, 2)),
        stream=StreamConfig(block=BLOCK),
    )


def inputs():
    keys = iter(jax.random.split(jax.random.key(0), 9))

    def normal(*shape):
        return jax.random.normal(next(keys), (2, *shape))

    params = init(DiT, DIT, next(keys))
    for name in ("action", "pose"):
        projection = params["blocks"][name]["proj"]
        projection["kernel"] = 0.3 * jax.random.normal(next(keys), projection["kernel"].shape)
    level = jnp.repeat(jax.random.uniform(next(keys), (2, 2)), BLOCK, axis=1)
    return params, dict(
        latents=normal(LATENTS, 8, 12, 16),
        noisy=normal(WINDOW, 8, 12, 16),
        level=level,
        conditions=Conditions.of(normal(4, 8), normal(LATENTS, 52), normal(LATENTS, 48)),
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

    def dense(self, q, k, v, _):
        q, k = rope.rotate(q, self.angles), rope.rotate(k, self.angles)
        logits = jnp.einsum("bnkd,bskd->bkns", q, k) * DIT.head_dim**-0.5
        weights = jax.nn.softmax(jnp.where(mask[:, None], logits, -jnp.inf))
        return jnp.einsum("bkns,bskd->bnkd", weights, v), None

    monkeypatch.setattr(packed.PackedAttention, "__call__", dense)
    literal = packed.noisy_velocity(params, cfg, **x)
    np.testing.assert_allclose(ours, literal, atol=2e-5)


LITERAL = {
    # Rows are queries, columns keys: clean blocks of 2 and 3 tokens, two noisy blocks of 2. What sample 0 has of the
    # past is the first clean block, sample 1 has both.
    0: """
       110000000
       110000000
       111110000
       111110000
       111110000
       110001100
       110001100
       110001111
       110001111""",
    1: """
       110000000
       110000000
       111110000
       111110000
       111110000
       111111100
       111111100
       111111111
       111111111""",
}


def test_attention_weights_are_positive_where_the_literal_matrix_says():
    """Values that are a row of the identity each: what comes out are the weights themselves."""
    q, k = jax.random.normal(jax.random.key(0), (2, 2, 9, 1, 10))
    v = jnp.broadcast_to(jnp.eye(9, 10)[None, :, None], (2, 9, 1, 10))
    angles = (jnp.ones((2, 9, 5)), jnp.zeros((2, 9, 5)))
    attend = packed.PackedAttention(angles, jnp.array([2, 5]), ends=(0, 2, 5), block_tokens=2)
    weights, _ = attend(q, k, v, None)
    for sample, matrix in LITERAL.items():
        expected = np.array([[int(x) for x in row] for row in matrix.split()])
        np.testing.assert_array_equal(np.asarray(weights[sample, :, 0, :9] > 0), expected)
        np.testing.assert_allclose(weights[sample].sum(-1), 1, rtol=1e-5)


def test_nothing_of_tokens_by_tokens_exists_at_full_size():
    """20 s at 480 x 832, traced: no array, mask or logits, has two axes as long as the packed sequence."""
    cfg = RelicConfig.wan_1_3b()
    length, window = 80, cfg.memory.window
    shape = (*cfg.latent_size, 16)
    abstract = {
        "latents": (1, length, *shape),
        "noisy": (1, window, *shape),
        "level": (1, window),
        "conditions": {"text": (1, 512, 4096), "actions": (1, length, 52), "poses": (1, length, 48)},
    }

    def shaped(size):
        return jax.ShapeDtypeStruct(size, jnp.float32)

    inputs = jax.tree.map(shaped, abstract, is_leaf=lambda x: isinstance(x, tuple))
    inputs["clean_blocks"] = jax.ShapeDtypeStruct((1,), jnp.int32)

    def run(params, x):
        return packed.noisy_velocity(params, cfg, **x | {"conditions": Conditions.of(**x["conditions"])})

    traced = jax.make_jaxpr(run)(module.abstract(DiT, cfg.dit), inputs)
    shapes = set(_shapes(traced.jaxpr))
    tokens = max(size for s in shapes for size in s[1:2] if len(s) == 3 and s[2] == cfg.dit.dim)
    assert 31_000 < tokens < 32_000  # the paper's 30K
    assert not [s for s in shapes if sum(size >= tokens for size in s) > 1]


def _shapes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            value = getattr(value, "jaxpr", value)
            if hasattr(value, "eqns"):
                yield from _shapes(value)


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
    level = np.asarray(levels(streams(jax.random.key(0)), 4000, 3, 2, 0.15, 5.0))
    assert level.shape == (4000, 6)
    assert (level[:, 0::2] == level[:, 1::2]).all()
    nearly_clean = (level[:, :4] <= 0.15).all(1)
    assert 0.45 < nearly_clean.mean() < 0.55
    assert (level[:, 4:] > 0.15).mean() > 0.9 and level.max() <= 1
