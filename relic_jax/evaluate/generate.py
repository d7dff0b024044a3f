"""Videos of many scenes at once, made as a session makes one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses as camera_poses
from relic_jax.config import RelicConfig
from relic_jax.diffusion import flow
from relic_jax.diffusion.velocity import bidirectional, guided
from relic_jax.models import vae
from relic_jax.models.conditioning import Conditions
from relic_jax.models.module import Params
from relic_jax.pixels import to_uint8
from relic_jax.stream import rollout

# How a model makes latents of whole clips: `latents` streams them, `whole_latents` makes them at once.
Sampler = Callable[..., Float[Array, "B L H W C"]]

_CHUNK = 8  # clips at once, where memory grows with the square of their length


def conditions(
    cfg: RelicConfig,
    text: Float[Array, "B M Dt"],
    actions: Float[Array, "B T 13"] | Float[np.ndarray, "B T 13"],
    pose_weight: Float[Array, "B"],
) -> Conditions:
    """What a model is told about clips of T = 4 (L - 1) + 1 frames: the poses are those that the actions lead to."""
    units = cfg.stream.translation_unit, cfg.stream.rotation_unit
    poses = camera_poses.pose_features(*camera_actions.poses_from_actions(jnp.asarray(actions), *units))
    return Conditions(text, camera_actions.action_features(jnp.asarray(actions)), poses, pose_weight)


@partial(jax.jit, static_argnames="cfg")
def latents(
    params: Params, cfg: RelicConfig, picture: Float[Array, "B H W C"], given: Conditions, key: PRNGKeyArray
) -> Float[Array, "B L H W C"]:
    """Latents of whole clips, streamed block by block.

    Args:
      params: the transformer's, kernels cast for compute.
      picture: its latent. given: of whole blocks.
    """
    return rollout.join(rollout.video(params, cfg, picture, given, key)[1])


@partial(jax.jit, static_argnames=("cfg", "steps", "guidance"))
def whole_latents(
    params: Params,
    cfg: RelicConfig,
    picture: Float[Array, "B H W C"],
    given: Conditions,
    key: PRNGKeyArray,
    *,
    steps: int = 48,
    guidance: float = 1.0,
) -> Float[Array, "B L H W C"]:
    """As `latents`, by a bidirectional model: every latent of a clip at once, in Euler steps from noise to data.

    Args:
      guidance: on the text; 1 is none, and half of the work.
    """
    velocity = guided(bidirectional(params, cfg), guidance)
    levels = flow.shift(1 - jnp.arange(steps) / steps)
    noise = jax.random.normal(key, (picture.shape[0], given.actions.shape[1], *picture.shape[1:]))

    def one(clip: tuple[Array, Array, Conditions]) -> Array:
        noise, picture, given = clip
        return flow.solve(lambda x, level: velocity(x, level, given), noise, picture, levels)[0]

    each = jax.tree.map(lambda x: x[:, None], (noise, picture, given))  # a batch of one clip each
    return jax.lax.map(one, each, batch_size=_CHUNK)[:, 0]


@partial(jax.jit, static_argnames="cfg")
def encode(params: Params, cfg: RelicConfig, frames: Float[Array, "B T H W 3"]) -> Float[Array, "B L h w C"]:
    """Frames in [-1, 1] as normalised latents; `params` are the VAE's."""
    return vae.encode_video(params, cfg.vae, frames)


@partial(jax.jit, static_argnames="cfg")
def pixels(params: Params, cfg: RelicConfig, latents: Float[Array, "B L h w C"]) -> UInt8[Array, "B T H W 3"]:
    """The frames of latents; `params` are the VAE's."""
    frames = vae.decode_video(params, cfg.vae, latents)
    return to_uint8(frames)
