"""Stage `teacher`: Wan with actions and poses, every latent seeing every other, flow matching on clips (SPEC 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from relic_jax.config import above, within
from relic_jax.diffusion import flow
from relic_jax.diffusion.velocity import bidirectional
from relic_jax.models.conditioning import Conditions
from relic_jax.models.module import Params
from relic_jax.rng import Streams
from relic_jax.train.clips import conditions, drop
from relic_jax.train.latent_stage import LatentStage
from relic_jax.train.run import ClipRunConfig, Scalars, SupervisedStage

SAMPLE_STEPS = 24  # Euler's, of held-out clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig(ClipRunConfig):
    """See `run.RunConfig`.

    Fields:
      shift: of the noise levels, toward noise.
      text_drop: share of the clips without text, for classifier-free guidance.
      picture_drop: share of the clips whose picture is noise too: what they show, the text alone says.
    """

    shift: float = flow.SHIFT
    text_drop: float = 0.1
    picture_drop: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        above(self, "config", 0, "shift")
        within(self, "config", 0, 1, "text_drop", "picture_drop")


class TeacherStage(SupervisedStage, LatentStage):
    """See `run.Stage`."""

    cfg: TeacherConfig

    def loss(self, params: Params, batch: Mapping[str, Array], rng: Streams) -> tuple[Float[Array, ""], Scalars]:
        """Flow matching: squared error of the velocity, the mean over all latents that are not a clean picture."""
        cfg = self.cfg
        given = drop(conditions(batch, cfg.model), rng, text=cfg.text_drop, pose=cfg.pose_drop)
        clean = batch["latents"].astype(jnp.float32)
        level = flow.shift(jax.random.uniform(rng["level"], (clean.shape[0], 1)), cfg.shift)
        hidden = jax.random.bernoulli(rng["picture_drop"], cfg.picture_drop, clean.shape[:1])
        level = jnp.broadcast_to(level, clean.shape[:2])
        level = level.at[:, 0].multiply(hidden)  # otherwise the picture is clean, and nothing to be learnt
        noise = jax.random.normal(rng["noise"], clean.shape)
        velocity = bidirectional(params, cfg.model, checkpoint=cfg.recompute)
        predicted = velocity(flow.add_noise(clean, noise, level), level, given)
        error = ((predicted - flow.velocity(clean, noise)) ** 2).mean((2, 3, 4))
        counts = jnp.ones_like(level).at[:, 0].set(hidden)
        return (error * counts).sum() / counts.sum(), {}

    def generate(self, params: Params, picture: Float[Array, "B H W C"], given: Conditions, key: PRNGKeyArray) -> Array:
        """Latents of whole clips by Euler steps, without guidance."""
        levels = flow.shift(1 - jnp.arange(SAMPLE_STEPS) / SAMPLE_STEPS, self.cfg.shift)
        noise = jax.random.normal(key, (picture.shape[0], given.actions.shape[1], *picture.shape[1:]))
        velocity = bidirectional(params, self.cfg.model)
        return flow.solve(lambda x, level: velocity(x, level, given), noise, picture, levels)[0]
