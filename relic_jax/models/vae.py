"""Wan 2.1's causal video VAE, with encode and decode that stream over a cache of constant shapes.

L latents stand for T = 4 (L - 1) + 1 frames: the first latent for one frame, each later one for four.
`encode` and `decode` take whole groups, so one compiled function serves the first call and every later one:

    cache = init_decode_cache(cfg, batch, height, width, dtype)
    cache, frames = decode(params, cfg, cache, latents)     # jit with cfg static, cache donated

On a stream's first call the first group has one frame, in its last slot: `encode` does not read the
slots before it, and what `decode` writes there is to be dropped. `encode_video` and `decode_video` take a
video whole. Latents are normalised with the parameters' own `latent_mean` and `latent_std`.

Source: Wan 2.1 (arXiv 2503.20314) and diffusers' `AutoencoderKLWan`, whose numbers these are; `patch_size`
is Wan 2.2's: pixels are folded into channels before the encoder and back after the decoder.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from relic_jax.config import VAEConfig
from relic_jax.errors import InputError
from relic_jax.models.module import Params, abstract, bind, param
from relic_jax.models.vae_layers import (
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    History,
    ResidualBlock,
    Stream,
    Upsample,
    Video,
    clear,
    delta,
    uniform_bias,
)

LOGVAR_OFFSET = -4.0  # initial log-variance: a posterior wide enough to hide the mean never learns
RGB = 3

# For `jax.jit(..., compiler_options=ONEDNN)` of bf16 convolutions on CPUs: XLA's own compute in float32, oneDNN's
# take half of the time. Not for the transformers: it slows their matrix products down.
ONEDNN = {"xla_cpu_experimental_onednn_custom_call": True}
# XLA can't write such a program to JAX's compilation cache; it is compiled in each process, which takes seconds, and
# runs twice as fast. Nothing is wrong and nothing can be done, so it isn't said.
warnings.filterwarnings("ignore", r"Error writing persistent compilation cache entry .*std::bad_alloc")

Latents = Float[Array, "B L H W C"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["history", "started"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class VAECache:
    """What a stream remembers.

    The fields are not shape-typed: tree functions put shapes, shardings and the like where the arrays are.

    Fields:
      history: the last input frames of every causal convolution.
      started: bool scalar, false until the first call.
    """

    history: History
    started: Any


class MidBlock(nnx.Module):
    """Residual block, attention inside the frame, residual block."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.resnets = nnx.Dict({str(i): ResidualBlock(features, features, rngs=rngs) for i in range(2)})
        self.attention = FrameAttention(features, rngs=rngs)

    def __call__(self, x: Video, history: History, stream: Stream | None) -> tuple[Video, History]:
        past0, past1 = history or (None, None)
        x, past0 = self.resnets["0"](x, past0, stream)
        x, past1 = self.resnets["1"](self.attention(x), past1, stream)
        return x, (past0, past1)


class Encoder(nnx.Module):
    """Folded pixels to the moments' features."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        widths = [cfg.base_dim * m for m in cfg.multipliers]
        self.conv_in = CausalConv3d(
            RGB * cfg.patch_size**2, cfg.base_dim, init=delta, bias_init=uniform_bias, rngs=rngs
        )
        blocks, extra, order, width = [], [], [], cfg.base_dim
        for level, features in enumerate(widths):
            for _ in range(cfg.res_blocks):
                order.append(("down_blocks", str(len(blocks))))
                blocks.append(ResidualBlock(width, features, rngs=rngs))
                width = features
            for _ in range(cfg.extra_blocks_of(level)):
                order.append(("extra_blocks", str(len(extra))))
                extra.append(ResidualBlock(width, width, rngs=rngs))
            if level < len(widths) - 1:
                order.append(("down_blocks", str(len(blocks))))
                blocks.append(Downsample(width, temporal=cfg.temporal_down[level], rngs=rngs))
        self.order = tuple(order)  # in which the blocks come; the extra ones are apart, so that Wan's keep their names
        self.down_blocks = nnx.Dict({str(i): block for i, block in enumerate(blocks)})
        if extra:
            self.extra_blocks = nnx.Dict({str(i): block for i, block in enumerate(extra)})
        self.mid_block = MidBlock(width, rngs=rngs)
        self.norm_out = ChannelNorm(width, rngs=rngs)
        self.conv_out = CausalConv3d(width, 2 * cfg.latent_channels, init=delta, rngs=rngs)

    def __call__(self, x: Video, history: History, stream: Stream | None) -> tuple[Float[Array, "B L h w D"], History]:
        x, past = self.body(x, history, stream)
        x, past["conv_out"] = self.conv_out(clear(x, stream), past.get("conv_out"))
        return x, past

    def body(
        self, x: Video, history: History, stream: Stream | None
    ) -> tuple[Float[Array, "B L h w D"], dict[str, Any]]:
        """All but the last convolution."""
        past = dict(history or {})
        x, past["conv_in"] = self.conv_in(clear(x, stream), past.get("conv_in"))
        blocks = [getattr(self, group)[name] for group, name in self.order]
        x, past["down_blocks"] = chain(blocks, x, past.get("down_blocks"), stream)
        x, past["mid_block"] = self.mid_block(x, past.get("mid_block"), stream)
        return jax.nn.silu(self.norm_out(x)), past


class UpBlock(nnx.Module):
    """Residual blocks of one level and the step up to the next."""

    def __init__(self, features_in: int, features_out: int, blocks: int, *, temporal: bool | None, rngs: nnx.Rngs):
        widths = [features_in] + [features_out] * blocks
        self.resnets = nnx.Dict(
            {str(i): ResidualBlock(a, b, rngs=rngs) for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))}
        )
        if temporal is not None:
            self.upsampler = Upsample(features_out, temporal=temporal, rngs=rngs)

    def __call__(
        self, x: Video, history: History, stream: Stream | None
    ) -> tuple[Float[Array, "B T2 H2 W2 D"], History]:
        past = dict(history or {})
        x, past["resnets"] = chain(in_order(self.resnets), x, past.get("resnets"), stream)
        if hasattr(self, "upsampler"):
            x, past["upsampler"] = self.upsampler(x, past.get("upsampler"), stream)
        return x, past


class Decoder(nnx.Module):
    """Latents to folded pixels."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        widths = [cfg.base_dim * m for m in reversed(cfg.multipliers)]
        # None is the last level, which has no way up.
        temporal: list[bool | None] = [*reversed(cfg.temporal_down), None]
        self.conv_in = CausalConv3d(cfg.latent_channels, widths[0], init=delta, bias_init=uniform_bias, rngs=rngs)
        self.mid_block = MidBlock(widths[0], rngs=rngs)
        blocks = [cfg.res_blocks + 1 + cfg.extra_blocks_of(level) for level in reversed(range(len(widths)))]
        # An upsampler halves the channels that it is given.
        entries = [widths[0], *(width // 2 for width in widths[:-1])]
        self.up_blocks = nnx.Dict(
            {
                str(i): UpBlock(entry, width, blocks[i], temporal=temporal[i], rngs=rngs)
                for i, (entry, width) in enumerate(zip(entries, widths, strict=True))
            }
        )
        self.norm_out = ChannelNorm(widths[-1], rngs=rngs)
        self.conv_out = CausalConv3d(widths[-1], RGB * cfg.patch_size**2, init=delta, rngs=rngs)

    def __call__(
        self, x: Latents, history: History, stream: Stream | None
    ) -> tuple[Float[Array, "B T2 H2 W2 D"], History]:
        past = dict(history or {})
        x, past["conv_in"] = self.conv_in(x, past.get("conv_in"))
        x, past["mid_block"] = self.mid_block(x, past.get("mid_block"), stream)
        x, past["up_blocks"] = chain(in_order(self.up_blocks), x, past.get("up_blocks"), stream)
        x, past["conv_out"] = self.conv_out(clear(jax.nn.silu(self.norm_out(x)), stream), past.get("conv_out"))
        return x, past


def in_order(blocks: nnx.Dict) -> list[nnx.Module]:
    """The blocks "0", "1", ..."""
    return [blocks[str(i)] for i in range(len(blocks))]


def chain(
    blocks: Sequence[nnx.Module], x: Video, history: History, stream: Stream | None
) -> tuple[Float[Array, "B T2 H2 W2 D"], History]:
    """The blocks one after the other, each with its own history."""
    past = list(history or [None] * len(blocks))
    for i, block in enumerate(blocks):
        x, past[i] = block(x, past[i], stream)
    return x, past


class VAE(nnx.Module):
    """Both halves and the statistics that latents are normalised with."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        channels = cfg.latent_channels
        self.encoder = Encoder(cfg, rngs=rngs)
        self.quant_conv = CausalConv3d(2 * channels, 2 * channels, (1, 1, 1), init=delta, rngs=rngs)
        self.post_quant_conv = CausalConv3d(channels, channels, (1, 1, 1), init=delta, rngs=rngs)
        self.decoder = Decoder(cfg, rngs=rngs)
        self.latent_mean = param(rngs, (channels,), (None,), nnx.initializers.zeros)
        self.latent_std = param(rngs, (channels,), (None,), nnx.initializers.ones)
        offset = jnp.repeat(jnp.array([0.0, LOGVAR_OFFSET]), channels)
        self.quant_conv.bias[...] = self.quant_conv.bias[...] + offset


def init_encode_cache(cfg: VAEConfig, batch: int, height: int, width: int, dtype: DTypeLike = jnp.float32) -> VAECache:
    """A stream of `batch` videos of `height` x `width` pixels that has not begun.

    Raises:
      InputError: the sides are not multiples of the VAE's stride.
    """
    _check_sides(cfg, height, width)
    pixels = jax.ShapeDtypeStruct((batch, 1, height, width, RGB), dtype)
    return _empty_cache(lambda vae, x: vae.encoder(fold(x, cfg.patch_size), None, None)[1], cfg, pixels)


def init_decode_cache(cfg: VAEConfig, batch: int, height: int, width: int, dtype: DTypeLike = jnp.float32) -> VAECache:
    """A stream of `batch` videos of `height` x `width` latent cells that has not begun; `dtype` is the decoder's."""
    latents = jax.ShapeDtypeStruct((batch, 1, height, width, cfg.latent_channels), dtype)
    return _empty_cache(lambda vae, z: vae.decoder(z, None, None)[1], cfg, latents)


def encode(
    params: Params, cfg: VAEConfig, cache: VAECache, frames: Float[Array, "B T H W 3"]
) -> tuple[VAECache, Float[Array, "B L h w C"]]:
    """The next groups of a stream of frames as normalised latents (the posterior's mean), in float32.

    Args:
      params: of `VAE`.
      cfg: static under jit.
      cache: of `init_encode_cache` or the last call.
      frames: T = 4 L pixels in [-1, 1]; on the first call slots 0 to 2 are not read. Their dtype, which must
        be the cache's, is that of the computation; use float32: bf16 latents make causal rollouts drift.

    Raises:
      InputError: T is not a multiple of the temporal stride, or frames don't fit the cache.
    """
    stride, count = cfg.temporal_stride, frames.shape[1]
    if count == 0 or count % stride:
        raise InputError(f"frames has {count} frames, expected a positive multiple of {stride}, whole groups")
    _check_sides(cfg, *frames.shape[2:4])
    x = fold(frames, cfg.patch_size)
    _check_cache(cache, "frames", x)
    vae = bind(VAE, cfg, params)
    features, history = vae.encoder(x, cache.history, Stream(count // stride, cache.started))
    mean, _ = jnp.split(vae.quant_conv.valid(features), 2, axis=-1)
    return _begun(cache, history), _normalise(params, mean)


def decode(
    params: Params, cfg: VAEConfig, cache: VAECache, latents: Float[Array, "B L h w C"]
) -> tuple[VAECache, Float[Array, "B T H W 3"]]:
    """The frames of a stream's next latents, in [-1, 1], T = 4 L; on the first call drop slots 0 to 2.

    Args:
      params: of `VAE`.
      cfg: static under jit.
      cache: of `init_decode_cache` or the last call.
      latents: normalised. Their dtype, which must be the cache's, is that of the computation and the frames.

    Raises:
      InputError: latents don't fit the cache.
    """
    _check_cache(cache, "latents", latents)
    vae = bind(VAE, cfg, params)
    z = vae.post_quant_conv.valid(_denormalise(params, latents))
    x, history = vae.decoder(z, cache.history, Stream(latents.shape[1], cache.started))
    return _begun(cache, history), jnp.clip(unfold(x, cfg.patch_size), -1, 1)


def encode_video(params: Params, cfg: VAEConfig, frames: Float[Array, "B T H W 3"]) -> Float[Array, "B L h w C"]:
    """A whole video of T = 4 (L - 1) + 1 frames in [-1, 1] as normalised latents (the mean), in float32.

    Raises:
      InputError: T is not of that form, or the sides are not multiples of the VAE's stride.
    """
    return _normalise(params, encode_moments(params, cfg, frames)[0])


def decode_video(params: Params, cfg: VAEConfig, latents: Float[Array, "B L h w C"]) -> Float[Array, "B T H W 3"]:
    """The T = 4 (L - 1) + 1 frames, in [-1, 1], of a whole video's normalised latents, in their dtype."""
    return jnp.clip(decode_sample(params, cfg, _denormalise(params, latents)), -1, 1)


def encode_moments(
    params: Params, cfg: VAEConfig, frames: Float[Array, "B T H W 3"]
) -> tuple[Float[Array, "B L h w C"], Float[Array, "B L h w C"]]:
    """Mean and log-variance of a whole video's posterior, not normalised: what training samples from.

    Raises:
      InputError: T is not 4 (L - 1) + 1, or the sides are not multiples of the VAE's stride.
    """
    stride, count = cfg.temporal_stride, frames.shape[1]
    if count != cfg.frames_of(cfg.latents_of(count)):
        raise InputError(f"frames has {count} frames, expected 1 and a multiple of {stride}")
    _check_sides(cfg, *frames.shape[2:4])
    vae = bind(VAE, cfg, params)
    features, _ = vae.encoder(fold(frames, cfg.patch_size), None, None)
    mean, logvar = jnp.split(vae.quant_conv.valid(features), 2, axis=-1)
    return mean, logvar


def encoder_features(params: Params, cfg: VAEConfig, frames: Float[Array, "B T H W 3"]) -> Float[Array, "B L h w D"]:
    """What the encoder knows of a whole video, before it is squeezed into latents: for comparing videos.

    Args:
      frames: T = 4 (L - 1) + 1 pixels in [-1, 1].
    """
    features, _ = bind(VAE, cfg, params).encoder.body(fold(frames, cfg.patch_size), None, None)
    return features


def decode_sample(params: Params, cfg: VAEConfig, sample: Float[Array, "B L h w C"]) -> Float[Array, "B T H W 3"]:
    """The frames of a draw from the posterior, not clipped: what training compares with the video."""
    vae = bind(VAE, cfg, params)
    x, _ = vae.decoder(vae.post_quant_conv.valid(sample), None, None)
    return unfold(x, cfg.patch_size)


def fold(x: Float[Array, "B T H W C"], patch: int) -> Float[Array, "B T h w D"]:
    """Squares of `patch` x `patch` pixels into channels, in Wan 2.2's order: colour, column, row."""
    batch, frames, height, width, channels = x.shape
    x = x.reshape(batch, frames, height // patch, patch, width // patch, patch, channels)
    x = x.transpose(0, 1, 2, 4, 6, 5, 3)
    return x.reshape(batch, frames, height // patch, width // patch, channels * patch**2)


def unfold(x: Float[Array, "B T h w D"], patch: int) -> Float[Array, "B T H W C"]:
    """The inverse of `fold`."""
    batch, frames, height, width, features = x.shape
    x = x.reshape(batch, frames, height, width, features // patch**2, patch, patch)
    x = x.transpose(0, 1, 2, 6, 3, 5, 4)
    return x.reshape(batch, frames, height * patch, width * patch, -1)


def _normalise(params: Params, mean: Latents) -> Latents:
    return (mean.astype(jnp.float32) - params["latent_mean"]) / params["latent_std"]


def _denormalise(params: Params, latents: Latents) -> Latents:
    # In float32: the sum would lose what bf16 latents still have.
    return (latents.astype(jnp.float32) * params["latent_std"] + params["latent_mean"]).astype(latents.dtype)


def _empty_cache(history, cfg: VAEConfig, x: jax.ShapeDtypeStruct) -> VAECache:
    """Zeros shaped as the history that a video of one frame leaves: the layers themselves say what it is."""
    shapes = jax.eval_shape(lambda p, x: history(bind(VAE, cfg, p), x), abstract(VAE, cfg), x)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return VAECache(history=zeros, started=jnp.zeros((), bool))


def _begun(cache: VAECache, history: History) -> VAECache:
    return VAECache(history=history, started=jnp.ones_like(cache.started))


def _check_sides(cfg: VAEConfig, height: int, width: int) -> None:
    stride = cfg.spatial_stride
    if height % stride or width % stride:
        raise InputError(f"frames are {height} x {width} pixels, expected multiples of the VAE's stride {stride}")


def _check_cache(cache: VAECache, name: str, x: Video) -> None:
    past = cache.history["conv_in"]
    expected, got = (past.shape[0], *past.shape[2:], past.dtype), (x.shape[0], *x.shape[2:], x.dtype)
    if expected != got:
        raise InputError(
            f"{name}, as the first convolution sees them, have batch, height, width, channels, dtype {got}, the cache "
            f"was made for {expected}"
        )
