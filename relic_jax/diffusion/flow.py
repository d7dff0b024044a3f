"""Flow matching as Wan uses it (SPEC 1): x_t = (1 - s) x0 + s e, v = e - x0, t = 1000 s.

A level s is 0 for data and 1 for noise; it may differ from latent to latent and broadcasts over the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SHIFT = 5.0  # of noise levels, where nothing else is said (SPEC 1)
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


def solve(
    velocity: Callable[[Latents, Level], Latents],
    noise: Latents,
    picture: Float[Array, "B H W C"],
    levels: Float[Array, "steps"],
) -> tuple[Latents, Float[Array, "steps B L H W C"]]:
    """Euler's path of whole clips from noise to data. Latent 0 is the picture, at level 0 all the way.

    Args:
      velocity: of a bidirectional model, given latents and the level of each.
      levels: those at which the model is asked, from 1 down; after the last comes 0.

    Returns:
      Where the path ends, and where it was at each level.
    """
    moving = jnp.ones(noise.shape[:2]).at[:, 0].set(0)

    def step(x: Latents, pair: tuple[Array, Array]) -> tuple[Latents, Latents]:
        level, to = (moving * s for s in pair)
        return euler(x, velocity(x, level), level, to), x

    after = jnp.concatenate([levels[1:], jnp.zeros(1)])
    return jax.lax.scan(step, noise.at[:, 0].set(picture), (levels, after))


def _over_cells(level: Level) -> Float[Array, "B L 1 1 1"]:
    return jnp.asarray(level)[..., None, None, None]
