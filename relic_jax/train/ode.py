"""Stage `ode`: the student's start, regressed on the teacher's ODE trajectories under hybrid forcing (SPEC 5).

What a trajectory passes through at a timestep is what the student will be given there, where it ends is what the
student should predict. Clean blocks of the past are the ends of the same trajectory.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from relic_jax.config import ConfigError
from relic_jax.data import loader
from relic_jax.diffusion import flow
from relic_jax.errors import InputError
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.train.causal import CausalStage
from relic_jax.train.clips import conditions, drop
from relic_jax.train.hybrid import noisy_velocity
from relic_jax.train.latent_stage import arguments
from relic_jax.train.stage import TrainConfig
from relic_jax.train.trajectories import check_teacher


class OdeStage(CausalStage):
    """See `stage.Stage`; batches are of `loader.TRAJECTORY_FIELDS`."""

    fields = loader.TRAJECTORY_FIELDS

    def loss(
        self, params: Params, batch: Mapping[str, Array], key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Squared error of the predicted clean latents; the mean over noisy latents but the picture."""
        cfg, block, window = self.cfg.model, self.cfg.model.stream.block, self.cfg.model.memory.window
        keys = jax.random.split(key, 3)
        given = drop(conditions(batch, cfg), keys[0], 0.0, self.cfg.ode.pose_drop)
        clean, path = batch["latents"], batch["trajectory"]
        count = clean.shape[0]
        clean_blocks = jax.random.randint(keys[1], (count,), 0, (clean.shape[1] - window) // block + 1)
        index = clean_blocks[:, None] * block + jnp.arange(window)  # [B, W_] of each noisy latent in the clip
        stop = jax.random.randint(keys[2], (count, window // block), 0, path.shape[2])  # one timestep a block
        stop = jnp.repeat(stop, block, axis=1)
        sample = jnp.arange(count)[:, None]
        noisy, target, picture = path[sample, index, stop], clean[sample, index], index == 0
        level = jnp.where(picture, 0, jnp.asarray(cfg.stream.timesteps)[stop] / flow.STEPS)
        v = noisy_velocity(
            cast_kernels(params, cfg.precision.compute),
            cfg,
            clean,
            noisy,
            level,
            given.text,
            given.actions,
            given.poses,
            clean_blocks,
            given.pose_weight,
            checkpoint=self.cfg.recompute,
        )
        error = ((flow.predict_clean(noisy, v, level) - target) ** 2).mean(axis=(2, 3, 4))
        last = error[:, -block:].mean()  # the block that has its whole window in sight, as in the stream
        return (error * ~picture).sum() / (~picture).sum(), {"loss_last_block": last}


def make(cfg: TrainConfig) -> OdeStage:
    """The stage, after the checks that need no compilation.

    Raises:
      ConfigError: there is no teacher to start from, or the clips' length fits neither block, window nor horizon.
      InputError: the teacher is shorter or another transformer, the data are no trajectories, or are kept at other
        timesteps; and see `latent_stage.arguments`.
    """
    model = cfg.model
    block, window, horizon = model.stream.block, model.memory.window, model.memory.horizon
    length = model.vae.latents_of(cfg.frames)
    if not cfg.init_from:
        raise ConfigError("config.init_from is empty: stage ode starts from the weights of the teacher")
    if length % block or not window <= length <= horizon:
        raise ConfigError(
            f"config.frames={cfg.frames} are {length} latents, expected a multiple of model.stream.block={block} "
            f"between model.memory.window={window} and model.memory.horizon={horizon}"
        )
    check_teacher(cfg.init_from, model.dit, cfg.frames)
    stage = OdeStage(*arguments(cfg, cfg.ode.vae))
    timesteps = loader.Latents(cfg.data, length, fields=loader.TRAJECTORY_FIELDS)[0]["timesteps"]
    if not np.array_equal(timesteps, np.float32(model.stream.timesteps)):
        raise InputError(
            f"{cfg.data}: trajectories are kept at timesteps {', '.join(f'{t:g}' for t in timesteps)}, "
            f"model.stream.timesteps are {', '.join(f'{t:g}' for t in model.stream.timesteps)}"
        )
    return stage
