"""Stage `teacher`: Wan with actions and poses, every latent seeing every other, flow matching on clips (SPEC 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from relic_jax.diffusion import flow
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params, bind
from relic_jax.train.clips import Conditions, conditions, drop
from relic_jax.train.latent_stage import LatentStage, arguments
from relic_jax.train.stage import TrainConfig


class TeacherStage(LatentStage):
    """See `stage.Stage`."""

    def loss(
        self, params: Params, batch: Mapping[str, Array], key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        options, cfg = self.cfg.teacher, self.cfg.model
        keys = jax.random.split(key, 4)
        given = drop(conditions(batch, cfg), keys[0], options.text_drop, options.pose_drop)
        clean = batch["latents"].astype(jnp.float32)
        level = flow.shift(jax.random.uniform(keys[1], (clean.shape[0], 1)), options.shift)
        hidden = jax.random.bernoulli(keys[3], options.picture_drop, clean.shape[:1])
        level = jnp.broadcast_to(level, clean.shape[:2])
        level = level.at[:, 0].multiply(hidden)  # otherwise the picture is clean, and nothing to be learnt
        noise = jax.random.normal(keys[2], clean.shape)
        noisy = flow.add_noise(clean, noise, level)
        v = velocity(params, self.cfg, noisy, level, given, checkpoint=self.cfg.recompute)
        error = ((v - flow.velocity(clean, noise)) ** 2).mean((2, 3, 4))
        counts = jnp.ones_like(level).at[:, 0].set(hidden)
        return (error * counts).sum() / counts.sum(), {}

    def generate(self, params: Params, image: Float[Array, "B H W C"], given: Conditions, key: PRNGKeyArray) -> Array:
        """Latents of whole clips by 24 Euler steps, without guidance."""
        levels = flow.shift(jnp.linspace(1, 0, 25), self.cfg.teacher.shift)[:-1]
        noise = jax.random.normal(key, (image.shape[0], given.actions.shape[1], *image.shape[1:]))
        return flow.solve(lambda x, level: velocity(params, self.cfg, x, level, given), noise, image, levels)[0]


def velocity(params: Params, cfg: TrainConfig, x: Array, level: Array, given: Conditions, **options: Any) -> Array:
    """The teacher's prediction in the configured compute precision."""
    model = bind(DiT, cfg.model.dit, cast_kernels(params, cfg.model.precision.compute))
    return model.video(x, level * flow.STEPS, given.text, given.actions, given.poses, given.pose_weight, **options)


def make(cfg: TrainConfig) -> TeacherStage:
    """The stage, after the checks that need no compilation."""
    return TeacherStage(*arguments(cfg, cfg.teacher.vae))
