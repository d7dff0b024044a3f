"""The streaming VAE is the whole VAE, whatever the chunks, with one compilation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import VAEConfig
from relic_jax.errors import InputError
from relic_jax.models import vae
from relic_jax.models.module import init

pytestmark = pytest.mark.usefixtures("compile_once")

WAN_LIKE = VAEConfig(base_dim=8, res_blocks=1)
TINY_LIKE = VAEConfig(base_dim=8, multipliers=(1, 2, 4), res_blocks=1, temporal_down=(True, True), patch_size=2)
DEEPER = dataclasses.replace(TINY_LIKE, base_dim=4, extra_res_blocks=(2, 1, 0))
CONFIGS = pytest.mark.parametrize("cfg", [WAN_LIKE, TINY_LIKE, DEEPER], ids=["wan_like", "tiny_like", "deeper"])
# Every chunk with one model, and the smallest, which every latent's history passes through, with each.
STREAMS = pytest.mark.parametrize(
    ("cfg", "chunk"),
    [(WAN_LIKE, 1), (WAN_LIKE, 2), (WAN_LIKE, 4), (TINY_LIKE, 1), (DEEPER, 1)],
    ids=["wan_like-1", "wan_like-2", "wan_like-4", "tiny_like-1", "deeper-1"],
)
BATCH, LATENTS, HEIGHT, WIDTH = 2, 4, 2, 3


@functools.cache
def example(cfg):
    """Random parameters (a fresh model's residual branches are zero), a video and its latents."""
    fresh = jax.jit(lambda key: init(vae.VAE, cfg, key))(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.05 * rng.standard_normal(x.shape, np.float32), fresh)
    shape = (BATCH, 4 * LATENTS - 3, HEIGHT * cfg.spatial_stride, WIDTH * cfg.spatial_stride, 3)
    frames = jax.random.uniform(jax.random.key(2), shape, minval=-1, maxval=1)
    latents = jax.jit(vae.encode_video, static_argnums=1)(params, cfg, frames)
    return params, frames, latents


def compiled(function):
    """A jit of its own for each caller, so that its compilations can be counted."""
    return jax.jit(lambda *args: function(*args), static_argnums=1, donate_argnums=2)


def encode_cache(cfg):
    return vae.init_encode_cache(cfg, BATCH, HEIGHT * cfg.spatial_stride, WIDTH * cfg.spatial_stride)


@STREAMS
def test_streamed_encode_is_whole_encode(cfg, chunk):
    params, frames, latents = example(cfg)
    # NaN where no frame is: it must not be read.
    slots = jnp.concatenate([jnp.full_like(frames[:, :3], jnp.nan), frames], axis=1)
    step, cache, pieces = compiled(vae.encode), encode_cache(cfg), []
    for group in jnp.split(slots, LATENTS // chunk, axis=1):
        cache, piece = step(params, cfg, cache, group)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, 1), latents, atol=1e-5, rtol=0)
    assert latents.std() > 0.1
    assert step._cache_size() == 1


@STREAMS
def test_streamed_decode_is_whole_decode(cfg, chunk):
    params, frames, latents = example(cfg)
    whole = jax.jit(vae.decode_video, static_argnums=1)(params, cfg, latents)
    step, cache, pieces = compiled(vae.decode), vae.init_decode_cache(cfg, BATCH, HEIGHT, WIDTH), []
    for group in jnp.split(latents, LATENTS // chunk, axis=1):
        cache, piece = step(params, cfg, cache, group)
        assert piece.shape[1] == 4 * chunk
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, 1)[:, 3:], whole, atol=1e-5, rtol=0)
    assert whole.shape == frames.shape and whole.std() > 0.1
    assert step._cache_size() == 1


@CONFIGS
def test_cache_keeps_its_shapes_and_dtypes(cfg):
    params, _, latents = example(cfg)
    for dtype in (jnp.float32, jnp.bfloat16):
        cache = vae.init_decode_cache(cfg, BATCH, HEIGHT, WIDTH, dtype)
        after, frames = jax.eval_shape(lambda c, z: vae.decode(params, cfg, c, z), cache, latents[:, :1].astype(dtype))
        assert frames.dtype == dtype
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), cache)
        assert {x.dtype for x in jax.tree.leaves(cache.history)} == {jnp.dtype(dtype)}


def test_a_picture_that_began_as_a_video_goes_on_as_one():
    """The first frame's latent is the same whatever follows: causality, which a stream lives on."""
    params, frames, latents = example(TINY_LIKE)
    picture = jax.jit(vae.encode_video, static_argnums=1)(params, TINY_LIKE, frames[:, :1])
    np.testing.assert_allclose(picture, latents[:, :1], atol=1e-5, rtol=0)


def test_wan_sized_caches_are_known_without_parameters():
    cache = jax.eval_shape(lambda: vae.init_decode_cache(VAEConfig.wan(), 1, 60, 104, jnp.bfloat16))
    assert cache.started.shape == () and cache.history["conv_in"].shape == (1, 2, 60, 104, 16)
    assert cache.history["conv_out"].shape == (1, 2, 480, 832, 96)


def test_bad_streams_are_named():
    params, frames, latents = example(TINY_LIKE)
    with pytest.raises(InputError, match="5 frames, expected a positive multiple of 4"):
        vae.encode(params, TINY_LIKE, encode_cache(TINY_LIKE), frames[:, :5])
    with pytest.raises(InputError, match="latents.*bfloat16.*cache"):
        cache = vae.init_decode_cache(TINY_LIKE, BATCH, HEIGHT, WIDTH)
        vae.decode(params, TINY_LIKE, cache, latents.astype(jnp.bfloat16))
    with pytest.raises(InputError, match="60 x 96 pixels, expected multiples of the VAE's stride 8"):
        vae.init_encode_cache(TINY_LIKE, 1, 60, 96)
