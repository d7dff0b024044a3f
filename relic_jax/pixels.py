"""Frames as bytes and as the model sees them, and how near two of them are.

Files, screens and data sets hold uint8 0..255; the VAE takes and gives float in [-1, 1]. Nothing else converts.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

Frames = UInt8[np.ndarray | Array, "*B H W 3"] | Float[np.ndarray | Array, "*B H W 3"]


def to_float[A: (np.ndarray, Array)](frames: UInt8[A, "*B H W 3"]) -> Float[A, "*B H W 3"]:
    """0..255 -> [-1, 1], float32; numpy's stay numpy's."""
    return frames.astype(np.float32) / 127.5 - 1


def to_uint8[A: (np.ndarray, Array)](frames: Float[A, "*B H W 3"]) -> UInt8[A, "*B H W 3"]:
    """[-1, 1] -> 0..255, rounded and clipped; numpy's stay numpy's."""
    namespace = frames.__array_namespace__()
    return namespace.clip(namespace.round((frames.astype(np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def unit(frames: Frames) -> Float[Array, "*B H W 3"]:
    """Either kind of frame in [0, 1]."""
    frames = jnp.asarray(frames)
    if frames.dtype == jnp.uint8:
        return frames.astype(jnp.float32) / 255
    return (jnp.clip(frames.astype(jnp.float32), -1, 1) + 1) / 2


def psnr(frames: Frames, truth: Frames) -> Float[Array, "*B"]:
    """Peak signal-to-noise ratio in dB, over the pixels and channels of each frame; infinite where they are equal."""
    error = jnp.square(unit(frames) - unit(truth)).mean((-3, -2, -1))
    return -10 * jnp.log10(error)


def lab(color: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B 3"]:
    """CIE L*a*b* (D65) of sRGB colours in [0, 1]; the distance of two is CIE76."""
    c = np.asarray(color, np.float64)
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    xyz = linear @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), (903.3 * xyz + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
