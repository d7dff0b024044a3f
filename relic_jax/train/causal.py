"""Stage `causal`: the block-causal student with memory, flow matching on clips under hybrid forcing (SPEC 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from relic_jax.config import ConfigError, RelicConfig, above, within
from relic_jax.diffusion import flow
from relic_jax.models.conditioning import Conditions
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.rng import Streams
from relic_jax.stream import rollout
from relic_jax.train import packed, two_pass
from relic_jax.train.clips import conditions, drop
from relic_jax.train.latent_stage import LatentStage
from relic_jax.train.run import ClipRunConfig, Scalars, SupervisedStage


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalConfig(ClipRunConfig):
    """See `run.RunConfig`.

    Fields:
      shift, text_drop: as the teacher's.
      context_noise: half of the time the blocks before the last get noise of a level up to this instead of one of
        their own: what the last block sees in the stream is clean but not flawless.
    """

    shift: float = flow.SHIFT
    text_drop: float = 0.1
    context_noise: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        above(self, "config", 0, "shift")
        within(self, "config", 0, 1, "text_drop", "context_noise")


class StreamingStage(LatentStage):
    """A stage whose student streams: held-out clips are made block by block, as a session does."""

    def generate(self, params: Params, picture: Float[Array, "B H W C"], given: Conditions, key: PRNGKeyArray) -> Array:
        """Latents of whole clips."""
        cfg = self.cfg.model
        return rollout.join(rollout.video(cast_kernels(params, cfg.precision.compute), cfg, picture, given, key)[1])

    def check_inputs(self) -> None:
        """See `LatentStage`; and the clips are whole blocks."""
        block = self.cfg.model.stream.block
        if self.length % block:
            raise ConfigError(
                f"config.frames={self.cfg.frames} are {self.length} latents, expected a multiple of "
                f"model.stream.block={block}"
            )
        super().check_inputs()


class HybridForcingStage(SupervisedStage, StreamingStage):
    """Clean blocks that memory holds, then noisy ones that fill the window (SPEC 5)."""

    def draw_noisy_blocks(self, count: int, rng: Streams) -> tuple[Int[Array, "B"], Int[Array, "B W_"]]:
        """How many clean blocks each of `count` clips begins with, and which latents are the noisy ones after them."""
        block, window = self.cfg.model.stream.block, self.cfg.model.memory.window
        clean_blocks = jax.random.randint(rng["clean_blocks"], (count,), 0, (self.length - window) // block + 1)
        return clean_blocks, clean_blocks[:, None] * block + jnp.arange(window)

    def mean_error(
        self, error: Float[Array, "B W_"], index: Int[Array, "B W_"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean over noisy latents but the picture; and of the block that has its whole window in sight."""
        counts = index > 0
        last = error[:, -self.cfg.model.stream.block :].mean()
        return (error * counts).sum() / counts.sum(), {"loss_last_block": last}

    def noisy_velocity(
        self,
        params: Params,
        latents: Float[Array, "B L H W C"],
        noisy: Float[Array, "B W_ H W C"],
        level: Float[Array, "B W_"],
        given: Conditions,
        clean_blocks: Int[Array, "B"],
    ) -> Float[Array, "B W_ H W C"]:
        """See `packed.noisy_velocity`."""
        cfg = self.cfg.model
        student = cast_kernels(params, cfg.precision.compute)
        function = hybrid_forcing(cfg)
        return function(student, cfg, latents, noisy, level, given, clean_blocks, checkpoint=self.cfg.recompute)

    def check_inputs(self) -> None:
        """See `StreamingStage`; and the clips are no shorter than the window."""
        if self.length < self.cfg.model.memory.window:
            raise ConfigError(
                f"config.frames={self.cfg.frames} are {self.length} latents, expected at least "
                f"model.memory.window={self.cfg.model.memory.window}"
            )
        super().check_inputs()


def hybrid_forcing(cfg: RelicConfig) -> Callable[..., Float[Array, "B W_ H W C"]]:
    """One packed pass where memory pools latents or nothing, two where it pools keys and values."""
    pools_keys = cfg.memory.mode == "relic" and cfg.memory.compress == "kv"
    return (two_pass if pools_keys else packed).noisy_velocity


class CausalStage(HybridForcingStage):
    """See `run.Stage`."""

    cfg: CausalConfig

    def loss(self, params: Params, batch: Mapping[str, Array], rng: Streams) -> tuple[Float[Array, ""], Scalars]:
        """Squared error of the noisy blocks' velocity."""
        cfg = self.cfg
        given = drop(conditions(batch, cfg.model), rng, text=cfg.text_drop, pose=cfg.pose_drop)
        clean = batch["latents"].astype(jnp.float32)
        clean_blocks, index = self.draw_noisy_blocks(clean.shape[0], rng)
        target = jnp.take_along_axis(clean, index[..., None, None, None], axis=1)
        block, window = cfg.model.stream.block, cfg.model.memory.window
        level = levels(rng, clean.shape[0], window // block, block, cfg.context_noise, cfg.shift)
        level = jnp.where(index == 0, 0, level)
        noise = jax.random.normal(rng["noise"], target.shape)
        noisy = flow.add_noise(target, noise, level)
        v = self.noisy_velocity(params, clean, noisy, level, given, clean_blocks)
        return self.mean_error(((v - flow.velocity(target, noise)) ** 2).mean(axis=(2, 3, 4)), index)


def levels(
    rng: Streams, count: int, blocks: int, block: int, context_noise: float, shift: float
) -> Float[Array, "B W_"]:
    """A noise level for each block, the same for its latents; see `CausalConfig.context_noise`."""
    own = flow.shift(jax.random.uniform(rng["level"], (count, blocks)), shift)
    context = jax.random.uniform(rng["context_level"], (count, blocks), maxval=context_noise)
    streaming = jax.random.bernoulli(rng["streaming"], 0.5, (count, 1)) & (jnp.arange(blocks) < blocks - 1)
    return jnp.repeat(jnp.where(streaming, context, own), block, axis=1)
