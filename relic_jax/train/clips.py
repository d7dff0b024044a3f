"""What the latent-space stages share: conditions of a batch of encoded clips, and pictures of what a model makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses as camera_poses
from relic_jax.config import RelicConfig

AGO = 32  # frames: what is nearer in time, the window may still hold
NEAR_STEPS, NEAR_DEGREES = 1.5, 3.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conditions:
    """All that a model is told about a batch of clips besides its latents. Batches may be stacked on leading axes."""

    text: Float[Array, "*S B M Dt"]
    actions: Float[Array, "*S B L 52"]
    poses: Float[Array, "*S B L 48"]
    pose_weight: Float[Array, "*S B"]


def conditions(batch: Mapping[str, Array], cfg: RelicConfig) -> Conditions:
    """Features of a batch with text, actions [B, T, 13], rotations, positions and `unit` [B].

    Positions are rescaled from the clip's own unit (its mean step, by which its actions were divided) to the
    stream's: the poses are then those that integrating the actions gives, as a session does.
    """
    scale = cfg.stream.translation_unit / batch["unit"]
    positions = batch["positions"] * scale[:, None, None]
    return Conditions(
        text=batch["text"].astype(jnp.float32),
        actions=camera_actions.action_features(batch["actions"]),
        poses=camera_poses.pose_features(batch["rotations"], positions),
        pose_weight=jnp.ones((positions.shape[0],), jnp.float32),
    )


def revisits(batch: Mapping[str, Array], stride: int, horizon: int, first: int) -> Bool[Array, "B L"]:
    """The latents whose last frame looks from where the camera has looked early in the clip, long enough ago.

    What they show is known from then, whatever else the clip shows. Long enough is AGO frames; the same place is
    within NEAR_STEPS of the clip's mean steps and NEAR_DEGREES.

    Args:
      stride: frames a latent; latent i ends with frame i * stride.
      horizon: latents; what lies farther back, memory has dropped.
      first: latents; what was first seen after them, a stream may have shown otherwise than the clip does.
    """
    rotations, positions = batch["rotations"], batch["positions"]
    now = jnp.arange(0, positions.shape[1], stride)
    cosine = (jnp.einsum("blij,btij->blt", rotations[:, now], rotations) - 1) / 2
    distance = jnp.linalg.norm(positions[:, now, None] - positions[:, None], axis=-1)
    near = distance < NEAR_STEPS * batch["unit"][:, None, None]
    ago = now[:, None] - jnp.arange(positions.shape[1])
    early = jnp.arange(positions.shape[1]) <= (first - 1) * stride
    remembered = (ago >= AGO) & (ago < horizon * stride) & early
    return (near & (cosine > np.cos(np.deg2rad(NEAR_DEGREES))) & remembered).any(-1)


def drop(given: Conditions, key: PRNGKeyArray, text: float, pose: float) -> Conditions:
    """Withholds the text (zeros, as padding is) and the poses of some samples, independently."""
    keys = jax.random.split(key)
    batch = given.text.shape[:1]
    keep_text = jax.random.bernoulli(keys[0], 1 - text, batch)
    keep_pose = jax.random.bernoulli(keys[1], 1 - pose, batch)
    return dataclasses.replace(
        given, text=given.text * keep_text[:, None, None], pose_weight=keep_pose.astype(jnp.float32)
    )
