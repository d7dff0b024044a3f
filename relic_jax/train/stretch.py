"""A stretch of a long video as a clip of its own, so that a teacher of 20 s can judge a rollout of any length.

The student streams on for as long as its users do, the teacher knows clips of one length. What it is shown of a
longer rollout is a stretch drawn at random, as Self-Forcing++ (arXiv 2510.02283) does: the last frame before it is
its picture, encoded anew because the latent of a picture is unlike one of four frames, and the camera starts there.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses as camera_poses
from relic_jax.config import VAEConfig
from relic_jax.models import vae
from relic_jax.models.module import Params

CONTEXT = 4  # latents decoded for the sake of the last frame (55 dB from all of them); also the grid of beginnings


def draw(key: PRNGKeyArray, length: int, latents: int) -> Int[Array, ""]:
    """Where a stretch begins: the number of its first latent, a multiple of CONTEXT."""
    return jax.random.randint(key, (), 0, (length - latents) // CONTEXT + 1) * CONTEXT


def clips(batch: Mapping[str, Array], start: Int[Array, ""], latents: int, stride: int) -> dict[str, Array]:
    """The stretch's actions and poses, as if its clips had begun there; `unit` and `text` are the clips'.

    Args:
      batch: actions [B, T, 13], rotations [B, T, 3, 3], positions [B, T, 3] and more, T frames of whole clips.
      stride: frames a latent.
    """

    def part(x: Float[Array, "B T ..."]) -> Float[Array, "B t ..."]:
        return jax.lax.dynamic_slice_in_dim(x, start * stride, stride * (latents - 1) + 1, axis=1)

    actions = part(batch["actions"]).at[:, 0].set(camera_actions.static_actions(1)[0])
    rotations, positions = camera_poses.relative(part(batch["rotations"]), part(batch["positions"]))
    return {**batch, "actions": actions, "rotations": rotations, "positions": positions}


def video(
    params: Params, cfg: VAEConfig, whole: Float[Array, "B L H W C"], start: Int[Array, ""], latents: int
) -> Float[Array, "B l H W C"]:
    """The stretch of a video of latents, its first one the picture that the video shows there.

    Args:
      params: the VAE's.
    """
    before = jax.lax.dynamic_slice_in_dim(whole, jnp.maximum(start - CONTEXT, 0), CONTEXT + 1, axis=1)
    frame = vae.decode_video(params, cfg, before)[:, -1:]
    picture = jnp.where(start == 0, whole[:, :1], vae.encode_video(params, cfg, frame))
    return jax.lax.dynamic_slice_in_dim(whole, start, latents, axis=1).at[:, :1].set(picture)


def spread(gradient: Float[Array, "B l H W C"], start: Int[Array, ""], length: int) -> Float[Array, "B L H W C"]:
    """A stretch's gradient as one of the whole video, of which the stretch is a sample: the mean keeps its size."""
    batch, latents, *shape = gradient.shape
    scale = (length - 1) / (latents - 1)  # pictures take no part
    return jax.lax.dynamic_update_slice_in_dim(
        jnp.zeros((batch, length, *shape), gradient.dtype), gradient * scale, start, axis=1
    )
