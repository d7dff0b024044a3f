"""The packed training pass of hybrid forcing (SPEC 5): compressed clean blocks, then noisy blocks, in one forward.

A clip of B blocks is cut into B - K clean blocks, pooled exactly as memory will hold them, and K noisy
blocks at full resolution (K blocks fill the window). Attention follows the stream:

  clean block j  sees clean blocks <= j
  noisy block j  sees all clean blocks and noisy blocks <= j
  clean never sees noisy

B differs from sample to sample: the clean part is laid out for the longest, and the noisy blocks read
only the clean tokens before them. Attention runs block by block over prefixes, so no mask of
tokens x tokens exists.

This is for memory that pools latents (`memory.compress="latent"`); `train.two_pass` is for the other kind.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from relic_jax.config import RelicConfig
from relic_jax.diffusion import flow
from relic_jax.memory import compress
from relic_jax.memory.layout import Layout, layout
from relic_jax.models import rope
from relic_jax.models.attention import AttentionPattern, Heads, per_sample, static
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT, grid_angles, patchify, unpatchify
from relic_jax.models.module import Params, bind
from relic_jax.ops.attention import attention


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
    """Velocity of the K noisy blocks that follow `clean_blocks` compressed ones.

    Args:
      latents: the clean clip; its first `clean_blocks` blocks are what the noisy ones remember.
      noisy: latents of the K = window / block blocks after them, each block at its own level.
      level: noise level of each noisy latent, 0 to 1.
      conditions: of the whole clip.
      clean_blocks: between 0 and L / block - K, for each sample.
      checkpoint: recompute each layer's activations in the backward pass.
    """
    lay, block, patch = layout(cfg), cfg.stream.block, cfg.dit.patch
    rows, columns = lay.grid
    window = noisy.shape[1]
    phases = [lay.phases[i % len(lay.phases)] for i in range((latents.shape[1] - window) // block if lay.phases else 0)]
    ends = np.cumsum([0] + [p.count for p in phases])
    clean_latents = len(phases) * block

    picked = clean_blocks[:, None] * block + jnp.arange(window)  # [B, W_] index of each noisy latent in the clip
    model = bind(DiT, cfg.dit, params)
    tokens = [patchify(noisy, patch)]
    for i in reversed(range(len(phases))):
        bank = compress.latent_bank(latents[:, i * block : (i + 1) * block], patch)
        tokens.insert(0, bank[:, phases[i].source[: phases[i].count]])
    owner = np.concatenate(  # the packed latent of each token
        [i * block + p.latent[: p.count] for i, p in enumerate(phases)]
        + [clean_latents + np.repeat(np.arange(window), lay.tokens_per_latent)]
    )

    past, now = conditions.at(slice(clean_latents)), conditions.at(picked)
    packed = dataclasses.replace(
        conditions,
        actions=jnp.concatenate([past.actions, now.actions], axis=1),
        poses=jnp.concatenate([past.poses, now.poses], axis=1),
    )
    velocity, _ = model(
        jnp.concatenate(tokens, axis=1),
        jnp.pad(level * flow.STEPS, ((0, 0), (clean_latents, 0))),  # clean latents are at t = 0
        packed,
        to_tokens=lambda x: x[:, owner],
        attend=PackedAttention(
            _angles(cfg, lay, phases, picked),
            visible=jnp.asarray(ends)[clean_blocks],
            ends=tuple(ends.tolist()),
            block_tokens=lay.tokens_per_block,
        ),
        checkpoint=checkpoint,
    )
    return unpatchify(velocity[:, int(ends[-1]) :], patch, window, rows, columns)


def _angles(cfg: RelicConfig, lay: Layout, phases: list, picked: Int[Array, "B W_"]) -> rope.Angles:
    """Angles of all packed tokens, [B, N, F]; the noisy part stands at another time in every sample."""
    angles = grid_angles(cfg.dit, picked, *lay.grid)
    if not phases:
        return angles
    position = np.concatenate([i * lay.block + p.latent[: p.count] for i, p in enumerate(phases)])
    centre = np.concatenate([p.centre[:, : p.count] for p in phases], axis=1)
    clean = rope.join(rope.temporal_angles(cfg.dit, jnp.asarray(position)), rope.spatial_angles(cfg.dit, *centre))
    cos, sin = (
        jnp.concatenate([jnp.broadcast_to(c, (picked.shape[0], *c.shape)), n], axis=1)
        for c, n in zip(clean, angles, strict=True)
    )
    return cos, sin


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedAttention(AttentionPattern):
    """Attention over the packed sequence, block by block: clean blocks, then noisy ones.

    Clean tokens that aren't in the sequence may come as the cache, rotated: all that the noisy blocks remember.

    Fields:
      angles: of all packed tokens; the noisy ones stand at another time in every sample.
      visible: how many of the clean tokens are each sample's past.
      block_tokens: of a noisy block.
      ends: clean tokens of the sequence before each clean block, and in all.
    """

    angles: rope.Angles = per_sample()
    visible: Int[Array, "B"] = per_sample()
    block_tokens: int = static()
    ends: tuple[int, ...] = static(default=(0,))

    def __call__(self, q: Heads, k: Heads, v: Heads, cache: Any) -> tuple[Heads, Any]:
        q, k = rope.rotate(q, self.angles), rope.rotate(k, self.angles)
        out = [
            attention(q[:, start:end], k[:, :end], v[:, :end])[0]
            for start, end in zip(self.ends[:-1], self.ends[1:], strict=True)
        ]
        if cache is not None:
            k, v = (jnp.concatenate([old.astype(x.dtype), x], axis=1) for old, x in zip(cache, (k, v), strict=True))
        out.append(noisy_attention(q[:, self.ends[-1] :], k, v, self.visible, self.block_tokens))
        return jnp.concatenate(out, axis=1), None


def noisy_attention(
    q: Float[Array, "B N K d"],
    k: Float[Array, "B S K d"],
    v: Float[Array, "B S K d"],
    visible: Int[Array, "B"],
    block_tokens: int,
) -> Float[Array, "B N K d"]:
    """Attention of the N tokens of the noisy blocks, each block to the past and to noisy blocks up to itself.

    Args:
      k, v: S - N clean tokens, then the noisy ones; all rotated.
      visible: how many of the clean tokens are each sample's past.
      block_tokens: of a noisy block.
    """
    clean, zero = k.shape[1] - q.shape[1], jnp.zeros_like(visible)
    out = []
    for start in range(0, q.shape[1], block_tokens):
        end = clean + start + block_tokens
        ranges = jnp.stack([zero, visible, zero + clean, zero + end], axis=-1).reshape(-1, 2, 2)
        out.append(attention(q[:, start : start + block_tokens], k[:, :end], v[:, :end], kv_ranges=ranges)[0])
    return jnp.concatenate(out, axis=1)
