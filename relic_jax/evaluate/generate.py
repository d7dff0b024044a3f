"""Videos of many scenes at once, made as a session makes one."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from relic_jax.camera import poses as camera_poses
from relic_jax.config import RelicConfig
from relic_jax.models import vae
from relic_jax.models.module import Params
from relic_jax.stream import rollout


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


@partial(jax.jit, static_argnames="cfg")
def encode(params: Params, cfg: RelicConfig, frames: Float[Array, "B T H W 3"]) -> Float[Array, "B L h w C"]:
    """Frames in [-1, 1] as normalised latents; `params` are the VAE's."""
    return vae.encode_video(params, cfg.vae, frames)


@partial(jax.jit, static_argnames="cfg")
def pixels(params: Params, cfg: RelicConfig, latents: Float[Array, "B L h w C"]) -> UInt8[Array, "B T H W 3"]:
    """The frames of latents; `params` are the VAE's."""
    frames = vae.decode_video(params, cfg.vae, latents)
    return jnp.round((frames + 1) * 127.5).astype(jnp.uint8)
