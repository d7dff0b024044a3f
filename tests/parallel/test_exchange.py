"""Tokens and heads change places and nothing else happens: odd counts, bound arrays, gradients, odd heads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.errors import InputError
from relic_jax.models.attention import AttentionPattern, per_sample, static
from relic_jax.ops.attention import attention
from relic_jax.parallel.exchange import Tokens, bytes_per_block
from tests.parallel.meshes import compile_quickly, divided, make, relative_error

SAMPLES, LATENTS, HEADS, WIDTH = 2, 3, 8, 4


def inputs(count):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=(SAMPLES, *shape)), jnp.float32)

    return normal(count, HEADS * WIDTH), normal(LATENTS, HEADS * WIDTH), normal(5, HEADS, WIDTH), normal(count)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gained(AttentionPattern):
    """Self-attention to the tokens and a cache, keys kept; queries have a gain of each sample's own."""

    gain: jax.Array = per_sample()
    shared: jax.Array
    twice: bool = static()

    def __call__(self, q, k, v, cache):
        keys, values = (jnp.concatenate([x, cache], axis=1) for x in (k, v))
        factor = 2 if self.twice else 1
        return attention(factor * q * self.gain[:, :, None, None] * self.shared, keys, values)[0], k


def layer(count, x, per_latent, cache, gain):
    """A caricature of a layer: copies from latents, self-attention to itself and a cache, keys kept."""
    owner = np.arange(count) * LATENTS // count
    tokens = Tokens(count)
    to_tokens = tokens.to_tokens(lambda a: a[:, owner], LATENTS)
    attend = tokens.attend(Gained(gain, jnp.float32(0.5), twice=True))
    x = tokens.divide(x)
    q = (x + to_tokens(per_latent)).reshape(SAMPLES, -1, HEADS, WIDTH)
    out, kept = attend(q, 2 * q, 3 * q, cache)
    return tokens.join(tokens.keep(out.reshape(x.shape))), kept


@pytest.mark.parametrize("count", [16, 10])  # 10 tokens over 4 devices: two are padding
def test_attention_and_its_gradient_equal_one_device(count):
    def outcome(*arrays):
        out, kept = layer(count, *arrays)
        return (out**2).sum() + (kept**3).sum(), (out, kept)

    function = jax.value_and_grad(outcome, argnums=(0, 1, 2, 3), has_aux=True)
    (loss, (out, kept)), gradients = jax.jit(function)(*inputs(count))
    mesh = make("data=2,seq=4")
    with jax.set_mesh(mesh):
        placed = [divided(mesh, x) for x in inputs(count)]
        program = compile_quickly(jax.jit(function), *placed)
    (ours, (our_out, our_kept)), our_gradients = program(*placed)
    assert our_out.shape == (SAMPLES, count, HEADS * WIDTH) and our_kept.shape == (SAMPLES, count, HEADS, WIDTH)
    for a, b in zip(
        jax.tree.leaves((ours, our_out, our_kept, our_gradients)),
        jax.tree.leaves((loss, out, kept, gradients)),
        strict=True,
    ):
        assert relative_error(a, b) < 1e-5
    assert our_kept.addressable_shards[0].data.shape == (SAMPLES // 2, count, HEADS // 4, WIDTH)


def test_heads_that_cannot_be_divided():
    mesh = make("tensor=2,seq=4")
    x = jnp.zeros((2, 8, 12, 4))
    with jax.set_mesh(mesh), pytest.raises(InputError, match="12 heads can't be divided over seq=4 x tensor=2 devices"):
        jax.eval_shape(Tokens(8).attend(Gained(jnp.ones((2, 8)), jnp.float32(1), twice=False)), x, x, x, x)


def test_few_samples_stay_whole():
    mesh = make("data=4,seq=2")  # two samples can't be divided over four devices
    expected, _ = layer(6, *inputs(6))
    with jax.set_mesh(mesh):
        out, _ = jax.jit(layer, static_argnums=0)(6, *inputs(6))
    assert relative_error(out, expected) < 1e-5


def test_bytes_of_the_paper_scheme():
    """14B at seq=4, a block of four latents in bf16: 48 MB a layer."""
    sent = bytes_per_block(1, 4 * 1560, 5120, seq=4, tensor=1, exchanged=2, stored=4)
    assert sent == {"all-to-all": 4 * 6240 * 5120 * 2 / 4 * 3 / 4, "all-reduce": 0}
    assert bytes_per_block(1, 4 * 1560, 5120, seq=1, tensor=1, exchanged=2, stored=4)["all-to-all"] == 0
