"""Stage `causal`: the block-causal student with memory, flow matching on clips under hybrid forcing (SPEC 5)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from relic_jax.camera.poses import FRAMES_PER_LATENT
from relic_jax.config import ConfigError
from relic_jax.diffusion import flow
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.stream import rollout
from relic_jax.train.clips import Conditions, conditions, drop
from relic_jax.train.hybrid import noisy_velocity
from relic_jax.train.latent_stage import LatentStage, arguments
from relic_jax.train.stage import TrainConfig


class CausalStage(LatentStage):
    """See `stage.Stage`."""

    def loss(
        self, params: Params, batch: Mapping[str, Array], key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        options, cfg = self.cfg.causal, self.cfg.model
        keys = jax.random.split(key, 4)
        given = drop(conditions(batch, cfg), keys[0], options.text_drop, options.pose_drop)
        clean = batch["latents"].astype(jnp.float32)
        block, window = cfg.stream.block, cfg.memory.window
        count = clean.shape[0]
        clean_blocks = jax.random.randint(keys[1], (count,), 0, (clean.shape[1] - window) // block + 1)
        opening = jax.random.bernoulli(jax.random.fold_in(keys[1], 0), options.opening, (count,))
        clean_blocks = jnp.where(opening, 0, clean_blocks)
        index = clean_blocks[:, None] * block + jnp.arange(window)
        target = jnp.take_along_axis(clean, index[..., None, None, None], axis=1)
        picture = index == 0
        level = jnp.where(
            picture, 0, levels(keys[2], count, window // block, block, options.context_noise, options.shift)
        )
        noise = jax.random.normal(keys[3], target.shape)
        v = noisy_velocity(
            cast_kernels(params, cfg.precision.compute),
            cfg,
            clean,
            flow.add_noise(target, noise, level),
            level,
            given.text,
            given.actions,
            given.poses,
            clean_blocks,
            given.pose_weight,
            checkpoint=self.cfg.recompute,
        )
        error = ((v - flow.velocity(target, noise)) ** 2).mean(axis=(2, 3, 4))
        last = error[:, -block:].mean()  # the block that has its whole window in sight, as in the stream
        return (error * ~picture).sum() / (~picture).sum(), {"loss_last_block": last}

    def generate(self, params: Params, image: Float[Array, "B H W C"], given: Conditions, key: PRNGKeyArray) -> Array:
        """Latents of whole clips, streamed block by block as a session does."""
        cfg = self.cfg.model
        params = cast_kernels(params, cfg.precision.compute)
        state = rollout.start(params, cfg, image, given.text, key, given.pose_weight)
        size = cfg.stream.block * FRAMES_PER_LATENT
        actions = given.actions.reshape(image.shape[0], -1, size, 13)

        def one(state: rollout.State, a: Array) -> tuple[rollout.State, Array]:
            return rollout.step(params, cfg, state, a)

        latents = jax.lax.scan(one, state, jnp.moveaxis(actions, 1, 0))[1]
        return jnp.moveaxis(latents, 0, 1).reshape(image.shape[0], -1, *image.shape[1:])


def levels(
    key: PRNGKeyArray, count: int, blocks: int, block: int, context_noise: float, shift: float
) -> Float[Array, "B W_"]:
    """A noise level for each block, spread over its latents.

    Every block is drawn on its own. For half of the samples the blocks before the last are nearly clean
    instead, up to `context_noise`: what the last block sees in the stream is clean but not flawless.
    """
    keys = jax.random.split(key, 3)
    own = flow.shift(jax.random.uniform(keys[0], (count, blocks)), shift)
    context = jax.random.uniform(keys[1], (count, blocks), maxval=context_noise)
    streaming = jax.random.bernoulli(keys[2], 0.5, (count, 1)) & (jnp.arange(blocks) < blocks - 1)
    return jnp.repeat(jnp.where(streaming, context, own), block, axis=1)


def make(cfg: TrainConfig) -> CausalStage:
    """The stage, after the checks that need no compilation.

    Raises:
      ConfigError: the clips are no whole blocks, or shorter than the window.
      InputError: see `latent_stage.arguments`.
    """
    block, window = cfg.model.stream.block, cfg.model.memory.window
    length = cfg.model.vae.latents_of(cfg.frames)
    if length % block or length < window:
        raise ConfigError(
            f"config.frames={cfg.frames} are {length} latents, expected a multiple of model.stream.block={block} and "
            f"at least model.memory.window={window}"
        )
    return CausalStage(*arguments(cfg, cfg.causal.vae))
