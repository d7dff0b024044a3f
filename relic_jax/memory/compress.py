"""Spatial pooling of a block's latents, or of its keys and values, to the resolutions of the schedule.

Both kinds of compression (`memory.compress`) fill the same bank: all latents of the block pooled by 1, by
2 and by 4, one after the other. `Phase.source` picks from it, so one compiled function serves every phase.
"""

from __future__ import annotations

import jax.numpy as jnp
from einops import rearrange, reduce
from jaxtyping import Array, Float

from relic_jax.memory.layout import FACTORS
from relic_jax.models.dit import patchify


def pool(x: Float[Array, "B L H W *rest"], factor: int, unit: int = 1) -> Float[Array, "B L h w *rest"]:
    """Average over `factor` x `factor` cells; sides are first padded by edge replication to multiples of
    `factor * unit` cells (`unit` is the patch side, so that pooled latents patchify)."""
    multiple = factor * unit
    pads = [(0, -side % multiple) for side in x.shape[2:4]]
    x = jnp.pad(x, [(0, 0), (0, 0), *pads] + [(0, 0)] * (x.ndim - 4), mode="edge")
    return reduce(x, "b l (h p) (w q) ... -> b l h w ...", "mean", p=factor, q=factor)


def latent_bank(latents: Float[Array, "B L H W C"], patch: int) -> Float[Array, "B S P"]:
    """Patches of clean latents pooled by each factor."""
    return jnp.concatenate([patchify(pool(latents, s, patch), patch) for s in FACTORS], axis=1)


def token_bank(x: Float[Array, "B N K d"], grid: tuple[int, int]) -> Float[Array, "B S K d"]:
    """Keys (before RoPE) or values of full-resolution tokens, pooled by each factor in float32."""
    rows, columns = grid
    x = rearrange(x, "b (l h w) k d -> b l h w k d", h=rows, w=columns)
    pooled = [rearrange(pool(x.astype(jnp.float32), s), "b l h w k d -> b (l h w) k d") for s in FACTORS]
    return jnp.concatenate(pooled, axis=1).astype(x.dtype)
