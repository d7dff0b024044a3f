"""Flow matching as Wan uses it (SPEC 1): x_t = (1 - s) x0 + s e, v = e - x0, t = 1000 s.

A level s is 0 for data and 1 for noise; it may differ from latent to latent and broadcasts over the rest.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

SHIFT = 5.0  # everywhere in this project (SPEC 1)
STEPS = 1000.0  # timestep of pure noise

Latents = Float[Array, "B L H W C"]
Level = Float[Array, "B L"]


def shift(level: Float[Array, "*batch"], k: float = SHIFT) -> Float[Array, "*batch"]:
    """Warps uniform levels toward noise: k s / (1 + (k - 1) s)."""
    return k * level / (1 + (k - 1) * level)


def add_noise(clean: Latents, noise: Latents, level: Level) -> Latents:
    """The point of the path at `level`."""
    s = _over_cells(level)
    return (1 - s) * clean + s * noise


def velocity(clean: Latents, noise: Latents) -> Latents:
    """What the model predicts, the same all along the path."""
    return noise - clean


def predict_clean(noisy: Latents, velocity: Latents, level: Level) -> Latents:
    """The data that the velocity at this point aims at."""
    return noisy - _over_cells(level) * velocity


def euler(noisy: Latents, velocity: Latents, level: Level, to: Level) -> Latents:
    """One straight step along the velocity from `level` to the lower level `to`."""
    return noisy + _over_cells(to - level) * velocity


def _over_cells(level: Level) -> Float[Array, "B L 1 1 1"]:
    return jnp.asarray(level)[..., None, None, None]
