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
from relic_jax.models import vae
from relic_jax.models.module import Params
from relic_jax.pixels import to_uint8
from relic_jax.stream import rollout
from relic_jax.train import dmd
from relic_jax.train.clips import Conditions

# How a model makes latents of whole clips: `latents` streams them, `whole_latents` makes them at once.
Sampler = Callable[..., Float[Array, "B L H W C"]]

_CHUNK = 8  # clips at once, where memory grows with the square of their length


@partial(jax.jit, static_argnames="cfg")
def latents(
    params: Params,
    cfg: RelicConfig,
    image: Float[Array, "B H W C"],
    words: Float[Array, "B M Dt"],
    actions: Float[Array, "B T 13"] | Float[np.ndarray, "B T 13"],
    key: PRNGKeyArray,
    pose_weight: Float[Array, "B"],
) -> Float[Array, "B L H W C"]:
    """Latents of whole clips, streamed block by block.

    Args:
      params: the transformer's, kernels cast for compute.
      image: the picture's latent. words: of the text encoder.
      actions: of T = 4 (L - 1) + 1 frames, L a multiple of the block.
      pose_weight: 0 withholds the camera poses.
    """
    state = rollout.start(params, cfg, image, words, key, pose_weight)
    padded = camera_poses.pad_first(actions)
    blocks = padded.reshape(padded.shape[0], -1, cfg.stream.block * rollout.FRAMES_PER_LATENT, 13)
    made = jax.lax.scan(lambda s, a: rollout.step(params, cfg, s, a), state, jnp.moveaxis(blocks, 1, 0))[1]
    return jnp.moveaxis(made, 0, 1).reshape(image.shape[0], -1, *image.shape[1:])


@partial(jax.jit, static_argnames=("cfg", "steps", "guidance"))
def whole_latents(
    params: Params,
    cfg: RelicConfig,
    image: Float[Array, "B H W C"],
    words: Float[Array, "B M Dt"],
    actions: Float[Array, "B T 13"] | Float[np.ndarray, "B T 13"],
    key: PRNGKeyArray,
    pose_weight: Float[Array, "B"],
    *,
    steps: int = 48,
    guidance: float = 1.0,
) -> Float[Array, "B L H W C"]:
    """As `latents`, by a bidirectional model: every latent of a clip at once, in Euler steps from noise to data.

    Args:
      guidance: on the text; 1 is none, and half of the work.
    """
    units = cfg.stream.translation_unit, cfg.stream.rotation_unit
    poses = camera_poses.pose_features(*camera_actions.poses_from_actions(actions, *units))
    told = words, camera_actions.action_features(actions), poses, pose_weight
    velocity = dmd.guided(dmd.velocity(params, cfg), guidance)
    levels = flow.shift(1 - jnp.arange(steps) / steps)
    noise = jax.random.normal(key, (image.shape[0], poses.shape[1], *image.shape[1:]))

    def one(clip: tuple[Array, ...]) -> Array:
        noise, image, *told = (x[None] for x in clip)
        given = Conditions(*told)
        return flow.solve(lambda x, level: velocity(x, level, given), noise, image, levels)[0][0]

    return jax.lax.map(one, (noise, image, *told), batch_size=_CHUNK)


@partial(jax.jit, static_argnames="cfg")
def encode(params: Params, cfg: RelicConfig, frames: Float[Array, "B T H W 3"]) -> Float[Array, "B L h w C"]:
    """Frames in [-1, 1] as normalised latents; `params` are the VAE's."""
    return vae.encode_video(params, cfg.vae, frames)


@partial(jax.jit, static_argnames="cfg")
def pixels(params: Params, cfg: RelicConfig, latents: Float[Array, "B L h w C"]) -> UInt8[Array, "B T H W 3"]:
    """The frames of latents; `params` are the VAE's."""
    frames = vae.decode_video(params, cfg.vae, latents)
    return to_uint8(frames)
