"""A bidirectional model as a velocity field over whole videos: what its sampler, its trajectories and scores ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from relic_jax.config import RelicConfig
from relic_jax.diffusion import flow
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params, bind

Latents = Float[Array, "B L H W C"]
Level = Float[Array, "B L"]
VelocityField = Callable[[Latents, Level, Conditions], Latents]  # of noisy latents and the level of each


def bidirectional(params: Params, cfg: RelicConfig, *, checkpoint: bool = False) -> VelocityField:
    """The model's velocity, in the configured compute precision.

    Args:
      checkpoint: recompute each layer's activations in the backward pass.
    """
    model = bind(DiT, cfg.dit, cast_kernels(params, cfg.precision.compute))

    def velocity(x: Latents, level: Level, conditions: Conditions) -> Latents:
        return model.video(x, level * flow.STEPS, conditions, checkpoint=checkpoint)

    return velocity


def guided(field: VelocityField, guidance: float) -> VelocityField:
    """Classifier-free guidance on the text, uncond + w (cond - uncond); 1 is none. Actions and poses stay given."""
    if guidance == 1:
        return field

    def velocity(x: Latents, level: Level, conditions: Conditions) -> Latents:
        without = dataclasses.replace(conditions, text=jnp.zeros_like(conditions.text))
        unconditional = field(x, level, without)
        return unconditional + guidance * (field(x, level, conditions) - unconditional)

    return velocity
