"""What the newest view attends to: attention's mass on each latent that the cache holds.

A probe: the newest block, clean, is asked once more at t = 0, with the cache as the next block will see it. Its
softmax weights are averaged over layers, heads and some of its tokens, and summed over the tokens of each latent.
Nothing of the session changes, and nothing is asked while a block is made: that would be another program.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from relic_jax.config import RelicConfig
from relic_jax.memory import cache as memory
from relic_jax.memory.contents import contents
from relic_jax.memory.layout import layout
from relic_jax.models import rope
from relic_jax.models.attention import AttentionPattern, Heads
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT, grid_angles, patchify
from relic_jax.models.module import Params, bind
from relic_jax.ops.attention import attention, valid_keys
from relic_jax.stream.state import State

QUERIES = 64  # tokens that are asked, evenly over the block: of a large model's thousands the mean needs no more


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ProbingAttention(AttentionPattern):
    """Tokens see part of the cache; kept is the mean mass on each token of it, [S]."""

    angles: rope.Angles
    past: Int[Array, "2 2"]

    def __call__(self, q: Heads, k: Heads, v: Heads, cache: Any) -> tuple[Heads, Any]:
        q, keys = rope.rotate(q, self.angles), cache[0]
        out, lse = attention(q, *cache, kv_ranges=self.past)
        every = -(-q.shape[1] // QUERIES)
        some = q[:, ::every].astype(jnp.float32)
        logits = jnp.einsum("bnkd,bskd->bnks", some, keys.astype(jnp.float32)) * q.shape[-1] ** -0.5
        mass = jnp.exp(logits - lse[:, ::every, :, None])
        return out, jnp.where(valid_keys(self.past, keys.shape[1]), mass, 0).mean((0, 1, 2))


@partial(jax.jit, static_argnames="cfg")
def token_mass(params: Params, cfg: RelicConfig, state: State) -> Float[Array, "S"]:
    """Mass on each token of the cache, in sum 1; of a state that has shown a block."""
    lay, model = layout(cfg), bind(DiT, cfg.dit, params)
    newest = state.block - 1
    slot = (newest % lay.window_blocks) * lay.block
    kept = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, slot, lay.block, axis=1), state.recent)
    past = jnp.stack(
        [
            memory.memory_range(lay, jnp.maximum(state.block - lay.window_blocks, 0)),
            memory.window_range(lay, state.block),
        ]
    )
    angles = grid_angles(cfg.dit, newest * lay.block + jnp.arange(lay.block), *lay.grid)
    _, mass = model(
        patchify(kept.latents, cfg.dit.patch),
        jnp.zeros(kept.latents.shape[:2], jnp.float32),
        Conditions(state.text, kept.actions, kept.poses, state.pose_weight),
        to_tokens=lambda a: jnp.repeat(a, lay.tokens_per_latent, axis=1),
        attend=ProbingAttention(angles, past),
        cache=(state.cache.k, state.cache.v),
    )
    return mass.mean(0)


def latent_mass(params: Params, cfg: RelicConfig, state: State) -> Float[np.ndarray, " N"]:
    """Mass on each of `memory.contents`' latents, in their order."""
    mass = np.asarray(token_mass(params, cfg, state))
    return np.array([mass[held.start : held.stop].sum() for held in contents(cfg, int(state.block))], np.float32)
