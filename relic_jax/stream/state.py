"""Everything a session is, between two blocks: the pytree that `rollout` moves on."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from relic_jax.config import RelicConfig
from relic_jax.memory import cache as memory
from relic_jax.memory.layout import layout
from relic_jax.models.conditioning import ACTION_FEATURES, POSE_FEATURES
from relic_jax.parallel.rules import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recent:
    """Clean latents of the window, and their conditions: what memory will be made of when they leave it."""

    latents: Float[Array, "B L H W C"]
    actions: Float[Array, "B L 52"]
    poses: Float[Array, "B L 48"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Everything a session is, between two blocks."""

    cache: memory.Cache
    recent: Recent  # a slot for each block of the window, used in turn
    picture: Float[Array, "B H W C"]
    text: Float[Array, "B M Dt"]
    rotation: Float[Array, "B 3 3"]  # the last frame's pose
    position: Float[Array, "B 3"]
    pose_weight: Float[Array, "B"]  # 0 withholds the poses from the model
    key: PRNGKeyArray
    block: Int[Array, ""]  # the number of the next block


def start(
    cfg: RelicConfig,
    picture: Float[Array, "B H W C"],
    text: Float[Array, "B M Dt"],
    key: PRNGKeyArray,
    pose_weight: Float[Array, "B"] | None = None,
) -> State:
    """A session that has shown nothing yet.

    Args:
      picture: its normalised latent, latent frame 0 of the stream.
      text: text encoder states, zero-padded to `dit.text_len`.
      key: all noise of the session comes from it and the block's number.
      pose_weight: 0 to withhold the camera poses; 1 by default.
    """
    batch, latents = picture.shape[0], cfg.memory.window - cfg.stream.block

    def recent(*shape: int) -> Array:
        return jnp.zeros((batch, latents, *shape), jnp.float32)

    return State(
        cache=placed(memory.init(cfg, layout(cfg), batch)),
        recent=Recent(recent(*picture.shape[1:]), recent(ACTION_FEATURES), recent(POSE_FEATURES)),
        picture=picture.astype(jnp.float32),
        text=text.astype(jnp.float32),
        rotation=jnp.broadcast_to(jnp.eye(3, dtype=jnp.float32), (batch, 3, 3)),
        position=jnp.zeros((batch, 3), jnp.float32),
        pose_weight=jnp.ones((batch,), jnp.float32) if pose_weight is None else pose_weight,
        key=key,
        block=jnp.zeros((), jnp.int32),
    )


def placed(cache: memory.Cache) -> memory.Cache:
    """On a mesh: samples and heads divided, whatever a loop over blocks begins with."""

    def place(leaf: Float[Array, "Z B *S K d"]) -> Float[Array, "Z B *S K d"]:
        return constrain(leaf, "layers", "batch", *(None,) * (leaf.ndim - 4), "stored_heads")

    return jax.tree.map(place, cache)
