"""Layers of Wan's video VAE: causal convolutions that can run over a whole video or over a stream.

Every layer with a temporal receptive field maps `(x, history) -> (y, history)`. `history` holds the
input frames that the next call needs; None starts a video. Wan encodes the first frame alone and then
groups of four. A stream here has groups of constant size instead, so the first group's leading slots hold
no frame (`Stream` tells which), and every layer puts the zeros there that Wan pads a video's start with.

Computation runs in the input's dtype, parameters are cast to it; norms and softmax are in float32.
Source: Wan 2.1 (arXiv 2503.20314, 4.1) and its port in diffusers, `AutoencoderKLWan`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from relic_jax.models.module import Initializer, param
from relic_jax.ops import convolution
from relic_jax.parallel import halo

Video = Float[Array, "B T H W C"]
History = Any  # a layer's pytree of past input frames, or None before the first

EPS = 1e-12  # of torch.nn.functional.normalize, which Wan's norm is


@dataclasses.dataclass(frozen=True)
class Stream:
    """A call over `latents` whole groups of frames; the first frame ever stands last in its group."""

    latents: int
    started: Bool[Array, ""]

    def group(self, x: Video) -> int:
        """How many slots of `x` belong to one latent."""
        return x.shape[1] // self.latents

    def from_slot(self, x: Video, slot: int) -> Bool[Array, "1 T 1 1 1"]:
        """True for every slot of `x` if the stream has started, else for those from `slot` on."""
        return (self.started | (jnp.arange(x.shape[1]) >= slot))[None, :, None, None, None]

    def clear(self, x: Video) -> Video:
        """`x` with zeros in the slots before the first frame ever."""
        absent = self.group(x) - 1
        return jnp.where(self.from_slot(x, absent), x, 0) if absent else x


def conv2d(
    x: Float[Array, "N H W C"],
    kernel: Float[Array, "KH KW C D"],
    *,
    stride: int = 1,
    padding: Literal["SAME", "VALID"] = "SAME",
) -> Float[Array, "N H2 W2 D"]:
    reach = kernel.shape[1] // 2
    if padding == "SAME" and stride == 1 and not halo.is_divided():
        return convolution.same(x, kernel.astype(x.dtype))
    pads: str | list[tuple[int, int]] = padding
    if padding == "SAME" and reach and halo.is_divided():
        x, pads = halo.widened(x, reach), [(kernel.shape[0] // 2, kernel.shape[0] // 2), (0, 0)]
    return jax.lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def over_frames(x: Video) -> Float[Array, "N H W C"]:
    return x.reshape(-1, *x.shape[2:])


class CausalConv3d(nnx.Module):
    """A 3D convolution that sees its frame and the `kernel - 1` before it; zeros stand before a video.

    Written as one 2D convolution over time-shifted frames concatenated on channels: XLA:CPU's 3D
    convolution is 3 to 4 times slower, forward and backward.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        kernel: tuple[int, int, int] = (3, 3, 3),
        *,
        stride: int = 1,
        init: Initializer | None = None,
        bias_init: Initializer = nnx.initializers.zeros,
        rngs: nnx.Rngs,
    ):
        self.stride = stride  # in time
        self.kernel = param(
            rngs, (*kernel, features_in, features_out), (None, None, None, "conv_in", "conv_out"), init or fan_in
        )
        self.bias = param(rngs, (features_out,), ("conv_out",), bias_init)

    def __call__(self, x: Video, history: History) -> tuple[Float[Array, "B T2 H W D"], History]:
        past = self.kernel.shape[0] - self.stride
        if history is None:
            history = jnp.zeros((x.shape[0], past, *x.shape[2:]), x.dtype)
        x = jnp.concatenate([history, x], axis=1)
        return self.valid(x), x[:, x.shape[1] - past :]

    def valid(self, x: Video) -> Float[Array, "B T2 H W D"]:
        """Without padding in time: `kernel - 1` frames are used up."""
        kernel, stride, frames = self.kernel[...], self.stride, x.shape[1]
        taps = kernel.shape[0]
        count = (frames - taps) // stride + 1
        x = jnp.concatenate([x[:, k : k + stride * (count - 1) + 1 : stride] for k in range(taps)], axis=-1)
        kernel = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], -1, kernel.shape[-1])
        y = conv2d(over_frames(x), kernel) + self.bias[...].astype(x.dtype)
        return y.reshape(*x.shape[:2], *y.shape[1:])


def fan_in(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Uniform with the variance 1 / fan-in."""
    bound = math.sqrt(3 / math.prod(shape[:-1]))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def uniform_bias(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Biases in [-1, 1]. Norms forget a vector's length: without an offset, brightness and contrast too."""
    return jax.random.uniform(key, shape, dtype, -1, 1)


def delta(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """A kernel that starts as a rotation of its newest frame's own pixel (delta-orthogonal, arXiv 1806.05393)."""
    *window, features_in, features_out = shape
    centre = tuple(size - 1 if i < len(window) - 2 else size // 2 for i, size in enumerate(window))
    rotation = jax.nn.initializers.orthogonal()(key, (features_in, features_out), dtype)
    return jnp.zeros(shape, dtype).at[centre].set(rotation)


def average(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """A 3x3 kernel that starts as the mean of the 2x2 pixels that a stride of two stands for."""
    return jnp.zeros(shape, dtype).at[:2, :2].set(jnp.eye(shape[-1], dtype=dtype) / 4)


def last_frame(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """A temporal kernel that hands on its newest frame, to each of the output frames it makes."""
    taps, _, _, features_in, features_out = shape
    identity = jnp.tile(jnp.eye(features_in, dtype=dtype), (1, features_out // features_in))
    return jnp.zeros(shape, dtype).at[taps - 1, 0, 0].set(identity)


class ChannelNorm(nnx.Module):
    """Root-mean-square norm over channels, in float32; no epsilon but a floor, as in Wan."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.gamma = param(rngs, (features,), ("conv_out",), nnx.initializers.ones)

    def __call__(self, x: Video) -> Video:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.maximum(jnp.sum(y * y, axis=-1, keepdims=True), EPS**2))
        return (y * (self.gamma[...] * math.sqrt(x.shape[-1]))).astype(x.dtype)


class ResidualBlock(nnx.Module):
    """Twice norm, SiLU, causal convolution; the second starts at zero, so that the block starts as its shortcut."""

    def __init__(self, features_in: int, features_out: int, *, rngs: nnx.Rngs):
        self.norm1 = ChannelNorm(features_in, rngs=rngs)
        self.conv1 = CausalConv3d(features_in, features_out, rngs=rngs)
        self.norm2 = ChannelNorm(features_out, rngs=rngs)
        self.conv2 = CausalConv3d(features_out, features_out, init=nnx.initializers.zeros, rngs=rngs)
        if features_in != features_out:
            self.conv_shortcut = CausalConv3d(features_in, features_out, (1, 1, 1), init=delta, rngs=rngs)

    def __call__(self, x: Video, history: History, stream: Stream | None) -> tuple[Float[Array, "B T H W D"], History]:
        past1, past2 = history or (None, None)
        shortcut = self.conv_shortcut.valid(x) if hasattr(self, "conv_shortcut") else x
        y, past1 = self.conv1(clear(jax.nn.silu(self.norm1(x)), stream), past1)
        y, past2 = self.conv2(clear(jax.nn.silu(self.norm2(y)), stream), past2)
        return y + shortcut, (past1, past2)


def clear(x: Video, stream: Stream | None) -> Video:
    return x if stream is None else stream.clear(x)


class FrameAttention(nnx.Module):
    """Single-head self-attention inside each frame."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.norm = ChannelNorm(features, rngs=rngs)
        self.to_qkv = CausalConv3d(features, 3 * features, (1, 1, 1), rngs=rngs)
        self.proj = CausalConv3d(features, features, (1, 1, 1), init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Video) -> Video:
        batch, frames, height, width, features = x.shape
        qkv = self.to_qkv.valid(self.norm(x)).reshape(batch * frames, height * width, 3 * features)
        q, k, v = jnp.split(qkv, 3, axis=-1)
        k, v = halo.gathered(k), halo.gathered(v)
        scores = jnp.einsum("nqc,nkc->nqk", q, k, preferred_element_type=jnp.float32) / math.sqrt(features)
        y = jnp.einsum("nqk,nkc->nqc", jax.nn.softmax(scores).astype(x.dtype), v)
        return x + self.proj.valid(y.reshape(x.shape))


class Conv2d(nnx.Module):
    """A 3x3 convolution of each frame."""

    def __init__(self, features_in: int, features_out: int, *, init: Initializer, rngs: nnx.Rngs):
        self.kernel = param(rngs, (3, 3, features_in, features_out), (None, None, "conv_in", "conv_out"), init)
        self.bias = param(rngs, (features_out,), ("conv_out",), nnx.initializers.zeros)


class Downsample(nnx.Module):
    """Half the sides, and half the frames if `temporal`; the video's first frame is kept alone."""

    def __init__(self, features: int, *, temporal: bool, rngs: nnx.Rngs):
        self.conv = Conv2d(features, features, init=average, rngs=rngs)
        if temporal:
            self.time_conv = CausalConv3d(features, features, (3, 1, 1), stride=2, init=last_frame, rngs=rngs)

    def __call__(
        self, x: Video, history: History, stream: Stream | None
    ) -> tuple[Float[Array, "B T2 H2 W2 C"], History]:
        y = jnp.pad(over_frames(x), ((0, 0), (0, 1), (0, 1), (0, 0)))
        y = conv2d(y, self.conv.kernel[...], stride=2, padding="VALID") + self.conv.bias[...].astype(x.dtype)
        y = y.reshape(*x.shape[:2], *y.shape[1:])
        if not hasattr(self, "time_conv"):
            return y, ()
        if stream is None:
            return jnp.concatenate([y[:, :1], self.time_conv.valid(y)], axis=1), y[:, -1:]
        halved, history = self.time_conv(y, history)
        return jnp.where(stream.from_slot(halved, stream.group(halved)), halved, y[:, 1::2]), history


class Upsample(nnx.Module):
    """Twice the sides with half the channels, and twice the frames if `temporal`, but not of the first frame.

    Wan hands the first frame around the temporal convolution, which so never sees it: its history starts
    with zeros at the second latent.
    """

    def __init__(self, features: int, *, temporal: bool, rngs: nnx.Rngs):
        self.conv = Conv2d(features, features // 2, init=delta, rngs=rngs)
        if temporal:
            self.time_conv = CausalConv3d(features, 2 * features, (3, 1, 1), init=last_frame, rngs=rngs)

    def __call__(
        self, x: Video, history: History, stream: Stream | None
    ) -> tuple[Float[Array, "B T2 H2 W2 C2"], History]:
        if not hasattr(self, "time_conv"):
            return self.enlarge(x), ()
        if stream is None:
            doubled, history = self.double(x[:, 1:], history)
            return self.enlarge(jnp.concatenate([x[:, :1], doubled], axis=1)), history
        group = stream.group(x)
        doubled, history = self.double(jnp.where(stream.from_slot(x, group), x, 0), history)
        y = jnp.where(stream.from_slot(doubled, 2 * group), doubled, jnp.repeat(x, 2, axis=1))
        return self.enlarge(y), history

    def double(self, x: Video, history: History) -> tuple[Float[Array, "B T2 H W C"], History]:
        y, history = self.time_conv(x, history)
        batch, frames, height, width, features = x.shape
        y = jnp.moveaxis(y.reshape(batch, frames, height, width, 2, features), 4, 2)
        return y.reshape(batch, 2 * frames, height, width, features), history

    def enlarge(self, x: Video) -> Float[Array, "B T H2 W2 C2"]:
        y = jnp.repeat(jnp.repeat(over_frames(x), 2, axis=1), 2, axis=2)
        y = conv2d(y, self.conv.kernel[...]) + self.conv.bias[...].astype(x.dtype)
        return y.reshape(*x.shape[:2], *y.shape[1:])
