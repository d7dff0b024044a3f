"""What a model is told: the text encoder of the transformer's own, and padding that is not attended to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError, DiTConfig, TextConfig
from relic_jax.models import module, text, tokenizer, umt5
from relic_jax.models.conditioning import Conditions, OwnTextEncoder, text_lengths
from relic_jax.models.dit import DiT

pytestmark = pytest.mark.usefixtures("compile_once")

WORDS = TextConfig(vocab=96, dim=96, layers=0, length=8)
DIT = DiTConfig(
    dim=32, ffn_dim=32, heads=2, layers=1, freq_dim=16, cond_dim=8, text_len=8, text_dim=96, text_layers=1,
    text_width=32, text_mask=True,
)  # fmt: skip
CAPTIONS = ["a red door", "a door red", "red"]


def states(captions=CAPTIONS):
    """One-hot words, [B, 8, 96]."""
    known = tokenizer.train(CAPTIONS, WORDS.vocab)
    return text.embed(module.init(umt5.text_encoder, WORDS, jax.random.key(0)), WORDS, known, list(captions))


def randomized(kind, cfg):
    """Parameters none of which is zero."""
    leaves, tree = jax.tree.flatten(module.init(kind, cfg, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [x + 0.2 * rng.standard_normal(x.shape).astype(np.float32) for x in leaves])


def test_words_without_an_encoder_are_one_hot_and_padding_is_zero():
    given = np.asarray(states())
    lengths = np.asarray(text_lengths(jnp.asarray(given)))
    for row, length in zip(given, lengths, strict=True):
        assert (row[:length].sum(-1) == 1).all() and row[:length].max(-1).min() == 1
        assert not row[length:].any()
    assert lengths[0] == lengths[1] > lengths[2] > 1  # words and an end token
    with pytest.raises(ConfigError, match="text.dim=64 differs from text.vocab=96"):
        dataclasses.replace(WORDS, dim=64)


def test_own_encoder_reads_the_order_of_words_and_nothing_behind_their_end():
    params = randomized(OwnTextEncoder, DIT)
    encode = jax.jit(lambda x, n: module.bind(OwnTextEncoder, DIT, params)(x, n))
    given = states()
    lengths = text_lengths(given)
    out = np.asarray(encode(given, lengths))
    assert out.shape == (3, 8, 32)
    end = int(lengths[0])
    assert not out[0, end:].any()
    # "red" and "door" stand in another order: neither means the same.
    assert np.abs(out[0, 1] - out[1, 2]).max() > 1e-3
    junk = given.at[0, end:].set(1.0)
    np.testing.assert_allclose(encode(junk, lengths)[0], out[0], atol=1e-6)


@pytest.mark.parametrize("mask", [True, False])
def test_padding_is_attended_to_unless_it_is_masked(mask):
    """Texts padded to 8 and to 12 mean the same where padding is masked, and not where Wan's way is kept."""
    cfg = dataclasses.replace(DIT, text_mask=mask)
    params = randomized(DiT, cfg)
    rng = np.random.default_rng(1)
    latents = jnp.asarray(rng.standard_normal((3, 2, 4, 4, 16)), jnp.float32)

    def velocity(given):
        conditions = Conditions.of(given, jnp.zeros((3, 2, 52)), jnp.zeros((3, 2, 48)))
        return jax.jit(module.bind(DiT, cfg, params).video)(latents, jnp.full((3, 2), 500.0), conditions)

    short = velocity(states())
    longer = velocity(jnp.pad(states(), ((0, 0), (0, 4), (0, 0))))
    assert (np.abs(short - longer).max() < 1e-5) == mask
    nothing = velocity(jnp.zeros((3, 8, 96)))
    assert np.isfinite(nothing).all() and np.abs(nothing - short).max() > 1e-2
