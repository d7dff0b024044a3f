"""The key-value cache: a frozen pytree of constant shapes, updated functionally (SPEC 4).

Keys are stored rotated, at their latent's own position. The phase tables of `layout` become device
arrays here, indexed by the dynamic block number, so that one compiled step serves every block.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from relic_jax.config import RelicConfig
from relic_jax.memory.layout import Layout
from relic_jax.models import rope


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of all layers, [layers, B, S, K, d] with S tokens in the order of `layout`.

    `pending_*` hold the pooled tokens of the window's blocks, [layers, B, blocks, coarse, K, d], until
    their block leaves the window; only `compress="kv"` has them, for it pools when keys are written.
    """

    k: Float[Array, "Z B S K d"]
    v: Float[Array, "Z B S K d"]
    pending_k: Float[Array, "Z B M P K d"] | None = None
    pending_v: Float[Array, "Z B M P K d"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Coarse:
    """The compressed tokens of one block (see `layout.Phase`), for a dynamic block number."""

    source: Int[Array, "P"]
    latent: Int[Array, "P"]
    place: Int[Array, "P"]
    count: Int[Array, ""]
    spatial: tuple[Float[Array, "P F"], Float[Array, "P F"]]


def init(cfg: RelicConfig, lay: Layout, batch: int) -> Cache:
    """An empty cache."""
    dtype = jnp.dtype(cfg.precision.cache)
    heads = (cfg.dit.heads, cfg.dit.head_dim)
    full = (cfg.dit.layers, batch, lay.size, *heads)
    k, v = jnp.zeros(full, dtype), jnp.zeros(full, dtype)
    if cfg.memory.mode != "relic" or cfg.memory.compress != "kv" or not lay.capacity:
        return Cache(k, v)
    pending = (cfg.dit.layers, batch, lay.window_blocks, lay.coarse, *heads)
    return Cache(k, v, jnp.zeros(pending, dtype), jnp.zeros(pending, dtype))


def coarse_tokens(cfg: RelicConfig, lay: Layout, block: Int[Array, ""]) -> Coarse:
    """The tables of the `block`-th block of the stream."""
    phase = block % len(lay.phases)
    spatial = [rope.spatial_angles(cfg.dit, *p.centre) for p in lay.phases]

    def table(values: list) -> Array:
        return jnp.asarray(np.stack(values))[phase]

    cos, sin = (jnp.stack(a)[phase] for a in zip(*spatial, strict=True))
    return Coarse(
        source=table([p.source for p in lay.phases]),
        latent=table([p.latent for p in lay.phases]),
        place=table([p.place for p in lay.phases]),
        count=table([np.int32(p.count) for p in lay.phases]),
        spatial=(cos, sin),
    )


def memory_range(lay: Layout, blocks: Int[Array, ""]) -> Int[Array, "2"]:
    """Valid tokens once `blocks` blocks have been compressed into memory."""
    latents = blocks * lay.block
    filled = jnp.asarray(lay.slot_starts, jnp.int32)[jnp.minimum(latents, lay.capacity)]
    start = jnp.where(latents > lay.capacity, 0, lay.picture)  # the ring has dropped the picture: use its copy
    return jnp.stack([start, lay.picture + filled]).astype(jnp.int32)


def window_range(lay: Layout, blocks: Int[Array, ""]) -> Int[Array, "2"]:
    """Valid tokens of the window once `blocks` blocks have been generated."""
    filled = jnp.minimum(blocks, lay.window_blocks) * lay.tokens_per_block
    return jnp.stack([jnp.full_like(filled, lay.memory), lay.memory + filled]).astype(jnp.int32)


def write_window(
    cache: Cache, lay: Layout, block: Int[Array, ""], k: Float[Array, "Z B N K d"], v: Float[Array, "Z B N K d"]
) -> Cache:
    """Puts a block's keys and values where the oldest block of the window was."""
    start = lay.memory + (block % lay.window_blocks) * lay.tokens_per_block

    def put(buffer: Array, values: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(buffer, _stored(values, buffer), start, axis=2)

    return dataclasses.replace(cache, k=put(cache.k, k), v=put(cache.v, v))


def read_window(cache: Cache, lay: Layout, block: Int[Array, ""]) -> tuple[Array, Array]:
    """Keys and values [Z B N K d] of a block that is still in the window."""
    start = lay.memory + (block % lay.window_blocks) * lay.tokens_per_block
    k, v = (jax.lax.dynamic_slice_in_dim(buffer, start, lay.tokens_per_block, axis=2) for buffer in (cache.k, cache.v))
    return k, v


def write_pending(cache: Cache, lay: Layout, block: Int[Array, ""], k: Array, v: Array) -> Cache:
    """Keeps a block's pooled keys and values [Z B P K d] until it leaves the window."""
    slot = block % lay.window_blocks

    def put(buffer: Array | None, values: Array) -> Array:
        assert buffer is not None  # of memory that pools keys and values
        return jax.lax.dynamic_update_index_in_dim(buffer, _stored(values, buffer), slot, axis=2)

    return dataclasses.replace(cache, pending_k=put(cache.pending_k, k), pending_v=put(cache.pending_v, v))


def read_pending(cache: Cache, lay: Layout, block: Int[Array, ""]) -> tuple[Array, Array]:
    """What `write_pending` kept of a block."""
    slot = block % lay.window_blocks
    k, v = (
        jax.lax.dynamic_index_in_dim(buffer, slot, axis=2, keepdims=False)
        for buffer in (cache.pending_k, cache.pending_v)
    )
    return k, v


def write_memory(
    cache: Cache, lay: Layout, block: Int[Array, ""], coarse: Coarse, k: Array, v: Array, when: Bool[Array, ""]
) -> Cache:
    """Puts a block's compressed keys and values [Z B P K d] into the ring, and the picture's into its place.

    Nothing is written where `when` is false (no block has left the window yet).
    """
    nowhere = lay.size  # an index past the buffer: the write is dropped
    ring = jnp.where(when & (jnp.arange(lay.coarse) < coarse.count), lay.picture + coarse.place, nowhere)
    places, sources = [ring], [slice(None)]
    if lay.picture:
        own = jnp.arange(lay.picture)
        places.append(jnp.where(when & (block == 0), own, nowhere))
        sources.append(slice(0, lay.picture))  # latent 0 comes first in its block, uncompressed

    def put(buffer: Array, values: Array) -> Array:
        for place, source in zip(places, sources, strict=True):
            buffer = buffer.at[:, :, place].set(_stored(values[:, :, source], buffer), mode="drop")
        return buffer

    return dataclasses.replace(cache, k=put(cache.k, k), v=put(cache.v, v))


def _stored(values: Array, buffer: Array) -> Array:
    """Values in the cache's dtype; E4M3 has no infinity, so what is beyond its largest number becomes that number."""
    if buffer.dtype.itemsize == 1:
        largest = jnp.finfo(buffer.dtype).max.astype(values.dtype)
        values = jnp.clip(values, -largest, largest)
    return values.astype(buffer.dtype)
