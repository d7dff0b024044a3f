"""A batch of encoded clips as what a model is told about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses as camera_poses
from relic_jax.config import RelicConfig
from relic_jax.models.conditioning import Conditions
from relic_jax.rng import Streams


def conditions(batch: Mapping[str, Array], cfg: RelicConfig) -> Conditions:
    """Features of a batch with text, actions [B, T, 13], rotations, positions and `unit` [B].

    Positions are rescaled from the clip's own unit (its mean step, by which its actions were divided) to the
    stream's: the poses are then those that integrating the actions gives, as a session does.
    """
    scale = cfg.stream.translation_unit / batch["unit"]
    positions = batch["positions"] * scale[:, None, None]
    return Conditions.of(
        batch["text"].astype(jnp.float32),
        camera_actions.action_features(batch["actions"]),
        camera_poses.pose_features(batch["rotations"], positions),
    )


def drop(given: Conditions, rng: Streams, *, text: float = 0.0, pose: float = 0.0) -> Conditions:
    """Withholds the text (zeros, as padding is) and the poses of shares of the samples, independently."""
    batch = given.text.shape[:1]
    if text:
        kept = jax.random.bernoulli(rng["text_drop"], 1 - text, batch)
        given = dataclasses.replace(given, text=given.text * kept[:, None, None])
    if pose:
        kept = jax.random.bernoulli(rng["pose_drop"], 1 - pose, batch)
        given = dataclasses.replace(given, pose_weight=kept.astype(jnp.float32))
    return given


def shapes(model: RelicConfig, frames: int, batch: int, *, timesteps: int = 0) -> dict[str, Any]:
    """The shapes of such a batch; with `timesteps`, of trajectories kept at so many."""
    latents = (model.vae.latents_of(frames), *model.latent_size, model.dit.latent_channels)
    fields = {
        "latents": latents,
        "text": (model.dit.text_len, model.dit.text_dim),
        "actions": (frames, len(camera_actions.ACTIONS)),
        "rotations": (frames, 3, 3),
        "positions": (frames, 3),
        "unit": (),
    }
    if timesteps:
        fields |= {"trajectory": (latents[0], timesteps, *latents[1:]), "timesteps": (timesteps,)}
    return {name: jax.ShapeDtypeStruct((batch, *shape), np.float32) for name, shape in fields.items()}
