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

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from relic_jax.config import RelicConfig
from relic_jax.diffusion import flow
from relic_jax.memory import compress
from relic_jax.memory.layout import Layout, layout
from relic_jax.models import rope
from relic_jax.models.dit import DiT, grid_angles, patchify, unpatchify
from relic_jax.models.module import Params, bind
from relic_jax.ops.attention import attention


def noisy_velocity(
    params: Params,
    cfg: RelicConfig,
    latents: Float[Array, "B L H W C"],
    noisy: Float[Array, "B W_ H W C"],
    level: Float[Array, "B W_"],
    text: Float[Array, "B M Dt"],
    actions: Float[Array, "B L 52"],
    poses: Float[Array, "B L 48"],
    clean_blocks: Int[Array, "B"],
    pose_weight: Float[Array, "B"] | None = None,
    *,
    checkpoint: bool = False,
) -> Float[Array, "B W_ H W C"]:
    """Velocity of the K noisy blocks that follow `clean_blocks` compressed ones.

    Args:
      latents: the clean clip; its first `clean_blocks` blocks are what the noisy ones remember.
      noisy: latents of the K = window / block blocks after them, each block at its own level.
      level: noise level of each noisy latent, 0 to 1.
      actions, poses: conditioning features of the whole clip.
      clean_blocks: between 0 and L / block - K, for each sample.
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

    def pack(x: Array) -> Array:  # [B, L, F] -> [B, clean latents + W_, F]
        return jnp.concatenate([x[:, :clean_latents], jnp.take_along_axis(x, picked[..., None], axis=1)], axis=1)

    action, pose = model.conditioner(pack(actions), pack(poses), pose_weight)
    velocity, _ = model(
        jnp.concatenate(tokens, axis=1),
        jnp.pad(level * flow.STEPS, ((0, 0), (clean_latents, 0))),  # clean latents are at t = 0
        model.embed_text(text),
        action,
        pose,
        spread=lambda x: x[:, owner],
        attend=_attend(
            _angles(cfg, lay, phases, picked),
            ends,
            lay.tokens_per_block,
            jnp.asarray(ends)[clean_blocks],
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
    return tuple(
        jnp.concatenate([jnp.broadcast_to(c, (picked.shape[0], *c.shape)), n], axis=1)
        for c, n in zip(clean, angles, strict=True)
    )


def _attend(angles: rope.Angles, ends: np.ndarray, block_tokens: int, visible: Int[Array, "B"]) -> Partial:
    """Attention over the packed sequence, block by block; `visible` clean tokens belong to each sample's past."""
    clean = int(ends[-1])

    def attend(
        angles: rope.Angles, visible: Array, q: Array, k: Array, v: Array, _: None
    ) -> tuple[Float[Array, "B N K d"], None]:
        q, k = rope.rotate(q, angles), rope.rotate(k, angles)
        out = [
            attention(q[:, start:end], k[:, :end], v[:, :end])[0]
            for start, end in zip(ends[:-1], ends[1:], strict=True)
        ]
        out.append(noisy_attention(q[:, clean:], k, v, visible, block_tokens))
        return jnp.concatenate(out, axis=1), None

    return Partial(attend, angles, visible)  # bound, not closed over: on a mesh each device has its own samples'


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
