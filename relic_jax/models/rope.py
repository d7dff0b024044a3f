"""Rotary position embedding over time, rows and columns, with YaRN on the temporal axis.

Angles come from float64 tables made on the host (Wan does the same). The temporal position of a stream
grows without end, so its phase is composed of two tables, p = 1024 a + b, by the addition theorem: exact
to float32 rounding for a million latents (three days of video), with constant shapes.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from relic_jax.config import DiTConfig

_STRIDE = 1024
_TRAINED_LATENTS = 21  # Wan's own length: 5 s

Angles = tuple[Float[Array, "... _"], Float[Array, "... _"]]  # cosines and sines of head_dim / 2 pairs a token


def axis_widths(head_dim: int) -> tuple[int, int, int]:
    """How many complex pairs belong to time, rows and columns (22, 21, 21 for head_dim 128)."""
    side = head_dim // 6
    return head_dim // 2 - 2 * side, side, side


def _frequencies(width: int, theta: float) -> np.ndarray:
    return theta ** -(np.arange(0, 2 * width, 2, dtype=np.float64) / (2 * width))


def temporal_frequencies(cfg: DiTConfig) -> np.ndarray:
    """Float64 temporal frequencies after YaRN (SPEC 3): low ones divided by s, high ones kept, a ramp between.

    The ramp runs over the frequencies' index, between those that turn `beta_fast` and `beta_slow` times
    within the trained length. With s = 1 the result is Wan's own, bit for bit.
    """
    width = axis_widths(cfg.head_dim)[0]
    plain = _frequencies(width, cfg.rope_theta)

    def index_of(turns: float) -> float:
        return width * math.log(_TRAINED_LATENTS / (turns * 2 * math.pi)) / math.log(cfg.rope_theta)

    low = max(math.floor(index_of(cfg.yarn_beta_fast)), 0)
    high = min(math.ceil(index_of(cfg.yarn_beta_slow)), width - 1)
    interpolated = np.clip((np.arange(width) - low) / max(high - low, 1e-3), 0, 1)
    return plain - interpolated * (plain - plain / cfg.yarn_scale)


def temporal_angles(cfg: DiTConfig, positions: Int[Array, "*batch L"]) -> Angles:
    """Cosines and sines of latent indices below 2^20, dynamic or not."""
    frequency = temporal_frequencies(cfg)
    fine = np.arange(_STRIDE)[:, None] * frequency
    coarse = np.arange(_STRIDE)[:, None] * (frequency * _STRIDE)
    a, b = positions // _STRIDE, positions % _STRIDE
    cos_a, sin_a = (jnp.asarray(f(coarse), jnp.float32)[a] for f in (np.cos, np.sin))
    cos_b, sin_b = (jnp.asarray(f(fine), jnp.float32)[b] for f in (np.cos, np.sin))
    return cos_a * cos_b - sin_a * sin_b, sin_a * cos_b + cos_a * sin_b


def spatial_angles(cfg: DiTConfig, rows: np.ndarray, columns: np.ndarray) -> Angles:
    """Cosines and sines of token centres [N] in units of full-resolution tokens; fractions are allowed."""
    _, h, w = axis_widths(cfg.head_dim)
    angle = np.concatenate(
        [
            np.asarray(rows, np.float64)[..., None] * _frequencies(h, cfg.rope_theta),
            np.asarray(columns, np.float64)[..., None] * _frequencies(w, cfg.rope_theta),
        ],
        axis=-1,
    )
    return jnp.asarray(np.cos(angle), jnp.float32), jnp.asarray(np.sin(angle), jnp.float32)


def join(temporal: Angles, spatial: Angles) -> Angles:
    """Angles of tokens from those of their latent and of their place, both already one a token."""
    shape = jnp.broadcast_shapes(temporal[0].shape[:-1], spatial[0].shape[:-1])
    pairs = zip(temporal, spatial, strict=True)
    cos, sin = (jnp.concatenate([jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in pair], axis=-1) for pair in pairs)
    return cos, sin


def rotate(x: Float[Array, "B N K D"], angles: Angles) -> Float[Array, "B N K D"]:
    """Turns each interleaved complex pair of the heads by its token's angle, in float32."""
    cos, sin = (a[..., None, :] for a in angles)  # over heads
    even, odd = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
