"""The tiny VAE against a torch module written out from taew2_1's description, and against itself in pieces."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError, TinyVAEConfig
from relic_jax.errors import InputError
from relic_jax.models import module, tiny_vae
from weights_convert import table
from weights_convert.tables import taew2_1

pytestmark = pytest.mark.usefixtures("compile_once")

FULL = TinyVAEConfig.taew2_1()
SMALL = TinyVAEConfig(latent_channels=4, encoder_dim=6, decoder_dims=(12, 8, 6, 6), blocks=2)
BATCH, LATENTS, HEIGHT, WIDTH = 2, 4, 2, 3
TOLERANCE = 1e-4


@functools.cache
def example():
    """Random parameters, filled on the host, latents and a video."""
    rng = np.random.default_rng(0)

    def fill(leaf):
        # Of variance 2 / fan-in, that of ReLU networks: outputs are of unit scale.
        scale = math.sqrt(2 / math.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
        return jnp.asarray(rng.normal(scale=scale, size=leaf.shape), leaf.dtype)

    params = jax.tree.map(fill, module.abstract(tiny_vae.TinyVAE, SMALL))
    out = params["decoder"]["conv_out"]
    out["kernel"], out["bias"] = out["kernel"] / 20, out["bias"] + 0.5  # most pixels within [0, 1]
    latents = rng.normal(size=(BATCH, LATENTS, HEIGHT, WIDTH, SMALL.latent_channels)).astype(np.float32)
    frames = rng.uniform(-1, 1, size=(BATCH, 4 * LATENTS - 3, 8 * HEIGHT, 8 * WIDTH, 3)).astype(np.float32)
    return params, jnp.asarray(latents), jnp.asarray(frames)


def compiled(function):
    """A jit of its own for each caller, so that its compilations can be counted."""
    return jax.jit(lambda *args: function(*args), static_argnums=1, donate_argnums=2)


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_parameters_are_those_of_taew2_1():
    """Counted by hand from the architecture: a memory block of n channels has 36 n^2 + 3 n, and so on."""
    shapes = module.abstract(tiny_vae.TinyVAE, FULL)
    memory = {n: 36 * n**2 + 3 * n for n in (256, 128, 64)}
    grow = 256 * 256 + 128 * 2 * 128 + 64 * 2 * 64
    between = 9 * (256 * 128 + 128 * 64 + 64 * 64)
    ends = (9 * 16 * 256 + 256) + (9 * 64 * 3 + 3)
    assert count(shapes["decoder"]) == 3 * sum(memory.values()) + grow + between + ends == 9_844_611
    pool = 2 * 64 * 64 + 2 * 64 * 64 + 64 * 64
    ends = (9 * 3 * 64 + 64) + (9 * 64 * 16 + 16)
    assert count(shapes["encoder"]) == 9 * memory[64] + pool + 3 * 9 * 64**2 + ends == 1_470_928
    axes = module.logical_axes(tiny_vae.TinyVAE, FULL)
    assert axes["decoder"]["conv_in"] == {"kernel": (None, None, "conv_in", "conv_out"), "bias": ("conv_out",)}


@pytest.mark.parametrize("chunk", [1, 2])
def test_streamed_decode_is_whole_decode(chunk):
    params, latents, _ = example()
    whole = jax.jit(tiny_vae.decode_video, static_argnums=1)(params, SMALL, latents)
    step, cache, pieces = compiled(tiny_vae.decode), tiny_vae.init_decode_cache(SMALL, BATCH, HEIGHT, WIDTH), []
    for group in jnp.split(latents, LATENTS // chunk, axis=1):
        cache, piece = step(params, SMALL, cache, group)
        assert piece.shape == (BATCH, 4 * chunk, 8 * HEIGHT, 8 * WIDTH, 3)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, 1)[:, 3:], whole, atol=1e-5, rtol=0)
    assert whole.shape[1] == 4 * LATENTS - 3
    assert whole.std() > 0.1 and jnp.mean(jnp.abs(whole) < 1) > 0.5 and jnp.max(jnp.abs(whole)) <= 1
    assert step._cache_size() == 1


def test_streamed_encode_is_whole_encode():
    params, _, frames = example()
    whole = jax.jit(tiny_vae.encode_video, static_argnums=1)(params, SMALL, frames)
    step, pieces = compiled(tiny_vae.encode), []
    cache = tiny_vae.init_encode_cache(SMALL, BATCH, 8 * HEIGHT, 8 * WIDTH)
    filled = jnp.concatenate([frames, jnp.repeat(frames[:, -1:], 3, axis=1)], axis=1)
    for group in jnp.split(filled, LATENTS, axis=1):
        cache, piece = step(params, SMALL, cache, group)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, atol=1e-5, rtol=0)
    assert whole.shape == (BATCH, LATENTS, HEIGHT, WIDTH, SMALL.latent_channels) and whole.std() > 0.1
    assert step._cache_size() == 1


def test_a_frame_depends_on_the_past_only():
    params, latents, _ = example()
    decode = jax.jit(tiny_vae.decode_video, static_argnums=1)
    changed = decode(params, SMALL, latents.at[:, 2].add(1))
    same = np.abs(changed - decode(params, SMALL, latents)).max((0, 2, 3, 4)) < 1e-6
    assert same.tolist() == [True] * 5 + [False] * 8  # latents 0 and 1 are frames 0 to 4


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_caches_keep_their_shapes_and_dtypes(dtype):
    params, latents, frames = example()
    described = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    cache = tiny_vae.init_decode_cache(SMALL, BATCH, HEIGHT, WIDTH, dtype)
    after, out = jax.eval_shape(lambda c, z: tiny_vae.decode(params, SMALL, c, z), cache, latents.astype(dtype))
    assert described(after) == described(cache) and out.dtype == dtype
    cache = tiny_vae.init_encode_cache(SMALL, BATCH, 8 * HEIGHT, 8 * WIDTH, dtype)
    frames = frames[:, :8].astype(dtype)
    after, out = jax.eval_shape(lambda c, x: tiny_vae.encode(params, SMALL, c, x), cache, frames)
    assert described(after) == described(cache) and out.dtype == jnp.float32


def test_bf16_decodes_in_bf16():
    params, latents, _ = example()
    decode = jax.jit(tiny_vae.decode_video, static_argnums=1)
    half = decode(params, SMALL, latents.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), decode(params, SMALL, latents), atol=0.05, rtol=0)


def test_taew2_1s_cache_at_relics_size():
    cache = jax.eval_shape(lambda: tiny_vae.init_decode_cache(FULL, 1, 60, 104, jnp.bfloat16))
    shapes = {name: {x.shape for x in blocks} for name, blocks in cache.history.items()}
    assert shapes == {"0": {(1, 1, 60, 104, 256)}, "1": {(1, 1, 120, 208, 128)}, "2": {(1, 1, 240, 416, 64)}}


def test_bad_input_is_named():
    params, latents, frames = example()
    cache = tiny_vae.init_decode_cache(SMALL, BATCH, HEIGHT, WIDTH)
    with pytest.raises(InputError, match="latents.*bfloat16.*cache"):
        tiny_vae.decode(params, SMALL, cache, latents.astype(jnp.bfloat16))
    with pytest.raises(InputError, match=r"latents.*\(2, 2, 3, 3, .*cache was made for \(2, 2, 3, 4, "):
        tiny_vae.decode(params, SMALL, cache, latents[..., :3])
    encode_cache = tiny_vae.init_encode_cache(SMALL, BATCH, 8 * HEIGHT, 8 * WIDTH)
    with pytest.raises(InputError, match="5 frames, expected a positive multiple of 4"):
        tiny_vae.encode(params, SMALL, encode_cache, frames[:, :5])
    with pytest.raises(InputError, match="frames have batch.*cache was made for"):
        tiny_vae.encode(params, SMALL, encode_cache, frames[:1, :4])
    with pytest.raises(InputError, match="4 frames, expected 1 and a multiple of 4"):
        tiny_vae.encode_video(params, SMALL, frames[:, :4])
    with pytest.raises(InputError, match="15 x 24 pixels, expected multiples of the VAE's stride 8"):
        tiny_vae.encode_video(params, SMALL, frames[:, :, :15])
    with pytest.raises(ConfigError, match="tiny_vae.decoder_dims has 2 entries, expected 4"):
        TinyVAEConfig(decoder_dims=(8, 8))


def test_taew2_1_is_its_description():
    pytest.importorskip("torch")
    from tests.taew2_1 import reference

    model = reference()
    leaves = module.abstract(tiny_vae.TinyVAE, FULL)
    state, params = {name: value.numpy() for name, value in model.state_dict().items()}, {}
    for tensor in table.expand(taew2_1.rows(FULL), leaves):
        value = state.pop(tensor.source)
        assert value.shape == tensor.shape
        *path, leaf = tensor.target.split(".")
        node = functools.reduce(lambda node, part: node.setdefault(part, {}), path, params)
        node[leaf] = jnp.asarray(tensor.row.transform.to_relic(value))
    assert not state and jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, leaves)

    rng = np.random.default_rng(0)
    latents = rng.normal(scale=2, size=(1, 2, 2, 3, 16)).astype(np.float32)
    theirs = np.clip(model.run(model.decoder, latents), 0, 1)[:, 3:] * 2 - 1
    ours = jax.jit(tiny_vae.decode_video, static_argnums=1)(params, FULL, latents)
    assert theirs.shape == (1, 5, 16, 24, 3) and theirs.std() > 0.1 and np.mean(np.abs(theirs) < 1) > 0.5
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)

    frames = rng.uniform(-1, 1, size=(1, 5, 16, 24, 3)).astype(np.float32)
    filled = np.concatenate([frames, *[frames[:, -1:]] * 3], axis=1)
    theirs = model.run(model.encoder, (filled + 1) / 2)
    ours = jax.jit(tiny_vae.encode_video, static_argnums=1)(params, FULL, frames)
    assert theirs.shape == (1, 2, 2, 3, 16) and theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
