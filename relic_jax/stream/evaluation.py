"""One evaluation of the transformer in the stream: a block that sees the cache, or one that is pooled for memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from relic_jax.config import RelicConfig
from relic_jax.diffusion import flow
from relic_jax.memory import cache as memory
from relic_jax.memory import compress
from relic_jax.memory.layout import Layout, layout
from relic_jax.models import rope
from relic_jax.models.attention import AttentionPattern, Heads, static
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT, grid_angles, patchify, unpatchify
from relic_jax.models.module import Params, bind
from relic_jax.ops.attention import attention, merge
from relic_jax.stream.state import State


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CachedAttention(AttentionPattern):
    """Tokens of one block see part of the cache, and themselves: the stream.

    Fields:
      own: ranges of the block's own tokens that are seen; None: all.
      past: ranges of the cache that are seen.
      keep: hand back keys (rotated), values and plain keys, for the cache.
    """

    angles: rope.Angles
    past: Int[Array, "2 2"]
    own: Int[Array, "2 2"] | None = None
    keep: bool = static(default=False)

    def __call__(self, q: Heads, k: Heads, v: Heads, cache: Any) -> tuple[Heads, Any]:
        rotated, plain = rope.rotate(k, self.angles), k
        q = rope.rotate(q, self.angles)
        parts = [attention(q, rotated, v, kv_ranges=self.own)]
        if cache[0].shape[1]:
            parts.append(attention(q, *cache, kv_ranges=self.past))
        return merge(parts)[0], (rotated, v, plain) if self.keep else None


def velocity(
    params: Params,
    cfg: RelicConfig,
    state: State,
    x: Float[Array, "B L H W C"],
    level: Float[Array, "B L"],
    conditions: Conditions,
    keep: bool = False,
    checkpoint: bool = False,
) -> tuple[Float[Array, "B L H W C"], Any]:
    """Velocity of the next block given memory and window; with `keep` also its keys (rotated), values, plain keys."""
    lay, model = layout(cfg), bind(DiT, cfg.dit, params)
    rows, columns = lay.grid
    positions = state.block * lay.block + jnp.arange(lay.block)
    leaving = jnp.maximum(state.block - lay.window_blocks, 0)
    past = jnp.stack([memory.memory_range(lay, leaving), memory.window_range(lay, state.block)])
    out, kept = model(
        patchify(x, cfg.dit.patch),
        level * flow.STEPS,
        conditions,
        to_tokens=lambda a: jnp.repeat(a, lay.tokens_per_latent, axis=1),
        attend=CachedAttention(grid_angles(cfg.dit, positions, rows, columns), past, keep=keep),
        cache=(state.cache.k, state.cache.v),
        checkpoint=checkpoint,
    )
    return unpatchify(out, cfg.dit.patch, lay.block, rows, columns), kept


def compressed(
    params: Params, cfg: RelicConfig, state: State, block: Int[Array, ""], coarse: memory.Coarse
) -> tuple[Array, Array]:
    """Keys and values [Z B P K d] with which a block that leaves the window enters memory."""
    lay = layout(cfg)
    if cfg.memory.mode == "full":  # nothing is pooled: within the horizon a fresh evaluation would give the same keys
        return memory.read_window(state.cache, lay, block)
    if cfg.memory.compress == "kv":
        return memory.read_pending(state.cache, lay, block)
    slot = (block % lay.window_blocks) * lay.block
    kept = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, slot, lay.block, axis=1), state.recent)
    model = bind(DiT, cfg.dit, params)
    angles = rope.join(_temporal(cfg, lay, block, coarse), coarse.spatial)
    none = jnp.zeros((2,), jnp.int32)
    _, (k, v, _) = model(
        compress.latent_bank(kept.latents, cfg.dit.patch)[:, coarse.source],
        jnp.zeros(kept.latents.shape[:2], jnp.float32),
        Conditions(state.text, kept.actions, kept.poses, state.pose_weight),
        to_tokens=lambda a: a[:, coarse.latent],
        attend=CachedAttention(
            angles,
            past=jnp.stack([memory.memory_range(lay, jnp.maximum(block, 0)), none]),
            own=jnp.stack([jnp.stack([none[0], coarse.count]), none]),
            keep=True,
        ),
        cache=(state.cache.k, state.cache.v),
    )
    return k, v


def pooled(
    cfg: RelicConfig, lay: Layout, block: Int[Array, ""], k: Float[Array, "Z B N K d"], v: Float[Array, "Z B N K d"]
) -> tuple[Array, Array]:
    """A block's keys (plain) and values pooled for memory; keys are rotated after pooling, which would cancel them."""
    coarse = memory.coarse_tokens(cfg, lay, block)
    angles = rope.join(_temporal(cfg, lay, block, coarse), coarse.spatial)

    def pool(x: Array) -> Array:
        return compress.token_bank(x, lay.grid)[:, coarse.source]

    return jax.vmap(lambda x: rope.rotate(pool(x), angles))(k), jax.vmap(pool)(v)


def _temporal(cfg: RelicConfig, lay: Layout, block: Int[Array, ""], coarse: memory.Coarse) -> rope.Angles:
    positions = jnp.maximum(block, 0) * lay.block + coarse.latent
    return rope.temporal_angles(cfg.dit, positions)
