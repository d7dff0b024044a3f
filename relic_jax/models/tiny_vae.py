"""TAEHV's `taew2_1`: a tiny autoencoder for Wan 2.1's latents, with encode and decode that stream.

Much cheaper than `models.vae`, somewhat less sharp, and called the same way:

    cache = init_decode_cache(cfg, batch, height, width, dtype)
    cache, frames = decode(params, cfg, cache, latents)     # jit with cfg static, cache donated

All convolutions are of single frames. Time enters through memory blocks, which also see their input of one frame
ago (zeros before the first), and where frames are pooled or grown in pairs. A stream remembers one frame a
memory block and nothing else, so its first call is like every other.

Conventions. Latents are the normalised ones, which the transformer works on: `taew2_1` was trained on Wan's latents
after (z - mean) / std and, unlike `models.vae`, holds no statistics (its README: it "does not use any latent
scales / shifts"; its users feed it the transformer's output). Pixels are in [-1, 1] here as in `models.vae`; the
network itself works in [0, 1]. The decoder makes four frames of every latent, so the first three of a video,
TAEHV's `frames_to_trim`, are to be dropped. The encoder makes latent l of frames 4 l to 4 l + 3 and those
before, three later than Wan's own encoder sees; a video's end is filled up with its last frame.

Source: github.com/madebyollin/taehv, `taehv.py` and README.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from relic_jax.config import TinyVAEConfig
from relic_jax.errors import InputError
from relic_jax.models.module import Params, abstract, bind, param
from relic_jax.models.vae_layers import History, Video, conv2d, fan_in, over_frames

CLAMP = 3.0  # latents are softly limited to this, in standard deviations
RGB = 3


@functools.partial(jax.tree_util.register_dataclass, data_fields=["history"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class TinyVAECache:
    """What a stream remembers: the last input frame of every memory block, zeros before the first.

    Not shape-typed: tree functions put shapes, shardings and the like where the arrays are.
    """

    history: Any


class Conv(nnx.Module):
    """A convolution of each frame, in the input's dtype."""

    def __init__(self, features_in: int, features_out: int, size: int = 3, *, bias: bool = True, rngs: nnx.Rngs):
        shape = (size, size, features_in, features_out)
        self.kernel = param(rngs, shape, (None, None, "conv_in", "conv_out"), fan_in)
        if bias:
            self.bias = param(rngs, (features_out,), ("conv_out",), nnx.initializers.zeros)

    def __call__(self, x: Video) -> Float[Array, "B T H W D"]:
        return self._apply(x, over_frames(x))

    def halve(self, x: Video) -> Float[Array, "B T h w D"]:
        """With a stride of two. A border of one pixel on all sides, of which even sides use the first."""
        border = jnp.pad(over_frames(x), ((0, 0), (1, 0), (1, 0), (0, 0)))
        return self._apply(x, border, stride=2, padding="VALID")

    def _apply(self, x: Video, frames: Float[Array, "N h w C"], **options: Any) -> Float[Array, "B T H2 W2 D"]:
        y = conv2d(frames, self.kernel[...], **options)
        if hasattr(self, "bias"):
            y = y + self.bias[...].astype(y.dtype)
        return y.reshape(*x.shape[:2], *y.shape[1:])


class MemoryBlock(nnx.Module):
    """A residual block that sees each frame beside the one before it."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.conv1 = Conv(2 * features, features, rngs=rngs)
        self.conv2 = Conv(features, features, rngs=rngs)
        self.conv3 = Conv(features, features, rngs=rngs)

    def __call__(self, x: Video, history: History) -> tuple[Video, History]:
        past = jnp.zeros_like(x[:, :1]) if history is None else history
        past = jnp.concatenate([past, x[:, :-1]], axis=1)
        y = jax.nn.relu(self.conv1(jnp.concatenate([x, past], axis=-1)))
        return jax.nn.relu(self.conv3(jax.nn.relu(self.conv2(y))) + x), x[:, -1:]


class Level(nnx.Module):
    """The memory blocks of one resolution and the way to it (encoder) or from it (decoder).

    `resample` mixes the channels of `stride` consecutive frames into one frame, or of one into `stride`.
    """

    def __init__(self, features: int, blocks: int, resample: Conv, conv: Conv, *, rngs: nnx.Rngs):
        self.resample, self.conv = resample, conv
        self.blocks = nnx.Dict({str(i): MemoryBlock(features, rngs=rngs) for i in range(blocks)})

    def remember(self, x: Video, history: History) -> tuple[Video, History]:
        past = list(history or [None] * len(self.blocks))
        for i in range(len(past)):
            x, past[i] = self.blocks[str(i)](x, past[i])
        return x, past


class Encoder(nnx.Module):
    """Pixels in [0, 1] to latents."""

    def __init__(self, cfg: TinyVAEConfig, *, rngs: nnx.Rngs):
        width = cfg.encoder_dim
        self.conv_in = Conv(RGB, width, rngs=rngs)
        self.levels = nnx.Dict(
            {
                str(i): Level(
                    width,
                    cfg.blocks,
                    Conv((1 + halves) * width, width, 1, bias=False, rngs=rngs),
                    Conv(width, width, bias=False, rngs=rngs),
                    rngs=rngs,
                )
                for i, halves in enumerate(cfg.temporal_down)
            }
        )
        self.conv_out = Conv(width, cfg.latent_channels, rngs=rngs)

    def __call__(self, x: Float[Array, "B T H W 3"], history: History) -> tuple[Float[Array, "B L h w C"], History]:
        x, past = jax.nn.relu(self.conv_in(x)), dict(history or {})
        for name, level in self.levels.items():
            x = level.conv.halve(level.resample(_frames_to_channels(x, level.resample.kernel.shape[2])))
            x, past[name] = level.remember(x, past.get(name))
        return self.conv_out(x), past


class Decoder(nnx.Module):
    """Latents to pixels in [0, 1], not clipped."""

    def __init__(self, cfg: TinyVAEConfig, *, rngs: nnx.Rngs):
        widths = cfg.decoder_dims
        self.conv_in = Conv(cfg.latent_channels, widths[0], rngs=rngs)
        self.levels = nnx.Dict(
            {
                str(i): Level(
                    width,
                    cfg.blocks,
                    Conv(width, (1 + doubles) * width, 1, bias=False, rngs=rngs),
                    Conv(width, widths[i + 1], bias=False, rngs=rngs),
                    rngs=rngs,
                )
                for i, (width, doubles) in enumerate(zip(widths, reversed(cfg.temporal_down), strict=False))
            }
        )
        self.conv_out = Conv(widths[-1], RGB, rngs=rngs)

    def __call__(self, x: Float[Array, "B L h w C"], history: History) -> tuple[Float[Array, "B T H W 3"], History]:
        x, past = jax.nn.relu(self.conv_in(jnp.tanh(x / CLAMP) * CLAMP)), dict(history or {})
        for name, level in self.levels.items():
            x, past[name] = level.remember(x, past.get(name))
            # The reference enlarges first; pixel by pixel it is the same, at a quarter of the work.
            x = _channels_to_frames(level.resample(x), x.shape[-1])
            x = level.conv(jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3))
        return self.conv_out(jax.nn.relu(x)), past


class TinyVAE(nnx.Module):
    """Both halves."""

    def __init__(self, cfg: TinyVAEConfig, *, rngs: nnx.Rngs):
        self.encoder = Encoder(cfg, rngs=rngs)
        self.decoder = Decoder(cfg, rngs=rngs)


def init_encode_cache(
    cfg: TinyVAEConfig, batch: int, height: int, width: int, dtype: DTypeLike = jnp.float32
) -> TinyVAECache:
    """A stream of `batch` videos of `height` x `width` pixels that has not begun.

    Raises:
      InputError: the sides are not multiples of the stride.
    """
    _check_sides(cfg, height, width)
    pixels = jax.ShapeDtypeStruct((batch, cfg.temporal_stride, height, width, RGB), dtype)
    return _empty_cache(lambda vae, x: vae.encoder(x, None)[1], cfg, pixels)


def init_decode_cache(
    cfg: TinyVAEConfig, batch: int, height: int, width: int, dtype: DTypeLike = jnp.float32
) -> TinyVAECache:
    """A stream of `batch` videos of `height` x `width` latent cells that has not begun; `dtype` is the decoder's."""
    latents = jax.ShapeDtypeStruct((batch, 1, height, width, cfg.latent_channels), dtype)
    return _empty_cache(lambda vae, z: vae.decoder(z, None)[1], cfg, latents)


def encode(
    params: Params, cfg: TinyVAEConfig, cache: TinyVAECache, frames: Float[Array, "B T H W 3"]
) -> tuple[TinyVAECache, Float[Array, "B L h w C"]]:
    """The next groups of a stream of frames as normalised latents, in float32.

    Args:
      params: of `TinyVAE`.
      cfg: static under jit.
      cache: of `init_encode_cache` or the last call.
      frames: T = 4 L pixels in [-1, 1]; the stream's first group is its first four frames, not, as for `vae.encode`,
        its first alone. Their dtype, which must be the cache's, is that of the computation.

    Raises:
      InputError: T is not a multiple of the temporal stride, or frames don't fit the cache.
    """
    stride, count = cfg.temporal_stride, frames.shape[1]
    if count == 0 or count % stride:
        raise InputError(f"frames has {count} frames, expected a positive multiple of {stride}, whole groups")
    _check_sides(cfg, *frames.shape[2:4])
    _check_cache(cache, "frames", frames, RGB, scale=2)
    latents, history = bind(TinyVAE, cfg, params).encoder((frames + 1) / 2, cache.history)
    return TinyVAECache(history), latents.astype(jnp.float32)


def decode(
    params: Params, cfg: TinyVAEConfig, cache: TinyVAECache, latents: Float[Array, "B L h w C"]
) -> tuple[TinyVAECache, Float[Array, "B T H W 3"]]:
    """The frames of a stream's next latents, in [-1, 1], T = 4 L; on the first call drop slots 0 to 2.

    Args:
      params: of `TinyVAE`.
      cfg: static under jit.
      cache: of `init_decode_cache` or the last call.
      latents: normalised. Their dtype, which must be the cache's, is that of the computation and the frames.

    Raises:
      InputError: latents don't fit the cache.
    """
    _check_cache(cache, "latents", latents, cfg.latent_channels)
    x, history = bind(TinyVAE, cfg, params).decoder(latents, cache.history)
    return TinyVAECache(history), jnp.clip(2 * x - 1, -1, 1)


def encode_video(params: Params, cfg: TinyVAEConfig, frames: Float[Array, "B T H W 3"]) -> Float[Array, "B L h w C"]:
    """A whole video of T = 4 (L - 1) + 1 frames in [-1, 1] as normalised latents, in float32.

    Raises:
      InputError: T is not of that form, or the sides are not multiples of the stride.
    """
    stride, count = cfg.temporal_stride, frames.shape[1]
    if count != cfg.frames_of(cfg.latents_of(count)):
        raise InputError(f"frames has {count} frames, expected 1 and a multiple of {stride}")
    _check_sides(cfg, *frames.shape[2:4])
    missing = stride * cfg.latents_of(count) - count
    frames = jnp.concatenate([frames, jnp.repeat(frames[:, -1:], missing, axis=1)], axis=1)
    latents, _ = bind(TinyVAE, cfg, params).encoder((frames + 1) / 2, None)
    return latents.astype(jnp.float32)


def decode_video(params: Params, cfg: TinyVAEConfig, latents: Float[Array, "B L h w C"]) -> Float[Array, "B T H W 3"]:
    """The T = 4 (L - 1) + 1 frames, in [-1, 1], of a whole video's normalised latents, in their dtype."""
    x, _ = bind(TinyVAE, cfg, params).decoder(latents, None)
    return jnp.clip(2 * x[:, cfg.temporal_stride - 1 :] - 1, -1, 1)


def _frames_to_channels(x: Video, channels: int) -> Float[Array, "B T2 H W C2"]:
    """Consecutive frames side by side on the channels, the earlier one first, until there are `channels`."""
    batch, frames, height, width, features = x.shape
    x = x.reshape(batch, -1, channels // features, height, width, features)
    return jnp.moveaxis(x, 2, 4).reshape(batch, -1, height, width, channels)


def _channels_to_frames(x: Video, channels: int) -> Float[Array, "B T2 H W C2"]:
    """The inverse of `_frames_to_channels`: frames of `channels` channels."""
    batch, frames, height, width, features = x.shape
    x = x.reshape(batch, frames, height, width, features // channels, channels)
    return jnp.moveaxis(x, 4, 2).reshape(batch, -1, height, width, channels)


def _empty_cache(history: Any, cfg: TinyVAEConfig, x: jax.ShapeDtypeStruct) -> TinyVAECache:
    """Zeros shaped as the history that one group leaves: the layers themselves say what it is."""
    shapes = jax.eval_shape(lambda p, x: history(bind(TinyVAE, cfg, p), x), abstract(TinyVAE, cfg), x)
    return TinyVAECache(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))


def _check_sides(cfg: TinyVAEConfig, height: int, width: int) -> None:
    stride = cfg.spatial_stride
    if height % stride or width % stride:
        raise InputError(f"frames are {height} x {width} pixels, expected multiples of the VAE's stride {stride}")


def _check_cache(cache: TinyVAECache, name: str, x: Video, channels: int, scale: int = 1) -> None:
    """The first memory block's sides are those of `x` divided by `scale`."""
    past = cache.history["0"][0]
    expected = (past.shape[0], scale * past.shape[2], scale * past.shape[3], channels, past.dtype)
    got = (x.shape[0], *x.shape[2:], x.dtype)
    if expected != got:
        raise InputError(f"{name} have batch, height, width, channels, dtype {got}, the cache was made for {expected}")
