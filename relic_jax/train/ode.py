"""Stage `ode`: the student's start, regressed on the teacher's ODE trajectories under hybrid forcing (SPEC 5).

What a trajectory passes through at a timestep is what the student will be given there, where it ends is what the
student should predict. Clean blocks of the past are the ends of the same trajectory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from relic_jax.config import ConfigError
from relic_jax.data import loader
from relic_jax.data.trajectories import check_teacher
from relic_jax.diffusion import flow
from relic_jax.errors import InputError
from relic_jax.models.module import Params
from relic_jax.rng import Streams
from relic_jax.train import abstract, clips
from relic_jax.train.causal import HybridForcingStage
from relic_jax.train.run import ClipRunConfig, Scalars


@dataclasses.dataclass(frozen=True, kw_only=True)
class OdeConfig(ClipRunConfig):
    """See `run.RunConfig`. The text is never dropped: the trajectories are the teacher's with guidance."""


class OdeStage(HybridForcingStage):
    """See `run.Stage`; batches are of `loader.TRAJECTORY_FIELDS`."""

    cfg: OdeConfig
    fields = loader.TRAJECTORY_FIELDS

    def abstract(self) -> abstract.Arguments:
        cfg = self.cfg
        batch = clips.shapes(cfg.model, cfg.frames, cfg.batch, timesteps=len(cfg.model.stream.timesteps))
        return dataclasses.replace(super().abstract(), batch=abstract.rows(batch))

    def loss(self, params: Params, batch: Mapping[str, Array], rng: Streams) -> tuple[Float[Array, ""], Scalars]:
        """Squared error of the predicted clean latents; the mean over noisy latents but the picture."""
        cfg = self.cfg.model
        given = clips.drop(clips.conditions(batch, cfg), rng, pose=self.cfg.pose_drop)
        clean, path = batch["latents"], batch["trajectory"]
        count, block = clean.shape[0], cfg.stream.block
        clean_blocks, index = self.draw_noisy_blocks(count, rng)
        stop = jax.random.randint(rng["timestep"], (count, index.shape[1] // block), 0, path.shape[2])  # one a block
        stop = jnp.repeat(stop, block, axis=1)
        sample = jnp.arange(count)[:, None]
        noisy, target = path[sample, index, stop], clean[sample, index]
        level = jnp.where(index == 0, 0, jnp.asarray(cfg.stream.timesteps)[stop] / flow.STEPS)
        v = self.noisy_velocity(params, clean, noisy, level, given, clean_blocks)
        return self.mean_error(((flow.predict_clean(noisy, v, level) - target) ** 2).mean(axis=(2, 3, 4)), index)

    def check_inputs(self) -> None:
        """See `HybridForcingStage`.

        Raises:
          ConfigError: there is no teacher to start from, or the clips' length fits neither block, window nor horizon.
          InputError: the teacher is shorter or another transformer, the data are no trajectories, or are kept at other
            timesteps.
        """
        cfg, model = self.cfg, self.cfg.model
        if not cfg.init_from:
            raise ConfigError("config.init_from is empty: stage ode starts from the weights of the teacher")
        if self.length > model.memory.horizon:
            raise ConfigError(
                f"config.frames={cfg.frames} are {self.length} latents, expected at most "
                f"model.memory.horizon={model.memory.horizon}"
            )
        check_teacher(cfg.init_from, model.dit, cfg.frames)
        super().check_inputs()
        timesteps = loader.Latents(cfg.data, self.length, fields=self.fields)[0]["timesteps"]
        if not np.array_equal(timesteps, np.asarray(model.stream.timesteps, np.float32)):
            raise InputError(
                f"{cfg.data}: trajectories are kept at timesteps {', '.join(f'{t:g}' for t in timesteps)}, "
                f"model.stream.timesteps are {', '.join(f'{t:g}' for t in model.stream.timesteps)}"
            )
