"""Hybrid forcing in two passes, for memory that pools keys and values (`memory.compress="kv"`, SPEC 4 and 5).

Pooled latents can stand in one packed sequence with the noisy blocks; pooled keys and values can't, for they come
from blocks at full resolution. So the clean clip is first written block by block with the stream's own code, and
what it pools is kept. Then the noisy blocks run, attending to that and to each other:

  clean block j  is written as in the stream: it sees its window whole and older blocks pooled
  noisy block j  sees all clean blocks, pooled, and noisy blocks <= j

The first pass has no gradient. The paper is silent; distillation detaches the cache as well (SPEC 6), and the
activations of 20 s at full resolution, which pooling is there to avoid, are never kept.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from relic_jax.config import RelicConfig
from relic_jax.diffusion import flow
from relic_jax.memory import cache as memory
from relic_jax.memory.layout import layout
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT, grid_angles, patchify, unpatchify
from relic_jax.models.module import Params, bind
from relic_jax.stream import rollout as stream
from relic_jax.train import packed


def noisy_velocity(
    params: Params,
    cfg: RelicConfig,
    latents: Float[Array, "B L H W C"],
    noisy: Float[Array, "B W_ H W C"],
    level: Float[Array, "B W_"],
    conditions: Conditions,
    clean_blocks: Int[Array, "B"],
    *,
    checkpoint: bool = False,
) -> Float[Array, "B W_ H W C"]:
    """See `packed.noisy_velocity`."""
    lay, patch = layout(cfg), cfg.dit.patch
    rows, columns = lay.grid
    window = noisy.shape[1]
    clean = latents.shape[1] - window if lay.capacity else 0
    k, v, ends = pooled_memory(params, cfg, latents[:, :clean], conditions.at(slice(clean)))
    picked = clean_blocks[:, None] * lay.block + jnp.arange(window)
    velocity, _ = bind(DiT, cfg.dit, params)(
        patchify(noisy, patch),
        level * flow.STEPS,
        conditions.at(picked),
        to_tokens=lambda x: jnp.repeat(x, lay.tokens_per_latent, axis=1),
        attend=packed.PackedAttention(
            grid_angles(cfg.dit, picked, rows, columns),
            visible=jnp.asarray(ends)[clean_blocks],
            block_tokens=lay.tokens_per_block,
        ),
        cache=(k, v),
        checkpoint=checkpoint,
    )
    return unpatchify(velocity, patch, window, rows, columns)


def pooled_memory(
    params: Params, cfg: RelicConfig, latents: Float[Array, "B L H W C"], conditions: Conditions
) -> tuple[Float[Array, "Z B S K d"], Float[Array, "Z B S K d"], Int[np.ndarray, "_"]]:
    """What the stream's memory holds of whole blocks once all of them have left the window; without gradient.

    Returns:
      Rotated keys and values of all layers, the tokens of one block after the other; and how many tokens there are
      before each block, and in all.
    """
    lay, batch = layout(cfg), latents.shape[0]
    count = latents.shape[1] // lay.block
    phases = [lay.phases[i % len(lay.phases)] for i in range(count)]
    ends = np.cumsum([0] + [phase.count for phase in phases])
    if not count:
        nothing = jnp.zeros((cfg.dit.layers, batch, 0, cfg.dit.heads, cfg.dit.head_dim))
        return nothing, nothing, ends
    params = jax.lax.stop_gradient(params)
    start = stream.start(cfg, latents[:, 0], conditions.text, jax.random.key(0), conditions.pose_weight)

    def write(state: stream.State, conditions: Conditions, clean: Array) -> tuple[stream.State, tuple[Array, Array]]:
        after = stream.write(params, cfg, state, clean, conditions)
        return after, memory.read_pending(after.cache, lay, state.block)

    # [blocks, Z, B, coarse, K, d], as many as the largest block has
    _, pooled = stream.scan_blocks(cfg, write, start, conditions, stream.split(latents, lay.block))
    k, v = (jnp.concatenate([x[i, :, :, : p.count] for i, p in enumerate(phases)], axis=2) for x in pooled)
    return k, v, ends
