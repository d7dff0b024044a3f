"""Stage `vae`: Wan's VAE on windows of clips, and at the end the statistics of its latents."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from relic_jax.config import VAEConfig, at_least
from relic_jax.data import loader
from relic_jax.errors import InputError
from relic_jax.models import module, vae
from relic_jax.models.module import Params
from relic_jax.parallel.part import WHOLE, Part
from relic_jax.parallel.placement import fetch
from relic_jax.pixels import psnr, to_float, to_uint8
from relic_jax.rng import Streams
from relic_jax.train import abstract
from relic_jax.train.run import Batches, RunConfig, Scalars, SupervisedStage
from relic_jax.video import image_grid

HELD_OUT = 8  # clips that `evaluate` measures
HELD_OUT_FRAMES = 81  # of each, at most: more than a training window, for the decoder runs on for ever
SHOWN = 4  # of them in the picture
STATISTICS = 32  # batches that the latents' mean and deviation are measured on


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAERunConfig(RunConfig):
    """See `run.RunConfig`. The loss is `l1` times L1 + `mse` times MSE + `kl` times the KL divergence to N(0, 1)."""

    l1: float = 1.0
    mse: float = 1.0
    kl: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, "config", 0, "l1", "mse", "kl")


class VAEStage(SupervisedStage):
    """See `run.Stage`; batches have `video`, uint8 [B, T, H, W, 3]. Nothing is frozen."""

    cfg: VAERunConfig

    @property
    def compiler_options(self) -> dict[str, Any]:
        narrow = self.cfg.model.precision.compute == "bfloat16"
        return vae.ONEDNN if narrow and jax.default_backend() == "cpu" else {}

    @property
    def parameters(self) -> Any:
        return abstract.copies(module.abstract(vae.VAE, self.cfg.model.vae))

    def abstract(self) -> abstract.Arguments:
        cfg, size = self.cfg, self.cfg.model.video
        video = jax.ShapeDtypeStruct((cfg.batch, cfg.frames, size.height, size.width, 3), np.uint8)
        return abstract.Arguments(self.abstract_state(), {}, abstract.rows({"video": video}))

    def weights(self, key: PRNGKeyArray) -> Params:
        return module.init(vae.VAE, self.cfg.model.vae, key)

    def loss(self, params: Params, batch: Mapping[str, Array], rng: Streams) -> tuple[Float[Array, ""], Scalars]:
        """L1 and MSE of a draw's reconstruction, and a small KL term; see `reconstruction_loss`."""
        model, video = self.cfg.model, to_float(batch["video"])
        return reconstruction_loss(params, model.vae, video, rng["draw"], self.cfg, model.precision.compute)

    def batches(self, seed: int, part: Part = WHOLE) -> Batches:
        cfg = self.cfg
        return loader.batches(cfg.data, batch=cfg.batch, seed=seed, frames=cfg.frames, fields=("video",), part=part)

    def evaluate(self, params: Params, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        """`val_psnr_db`: mean over held-out clips of what encode and decode keep."""
        kept = [psnr(self._reconstruct(params, video), video).mean() for video in self.held_out]
        return {"val_psnr_db": float(np.mean(kept))}

    def sample(self, params: Params, frozen: Any, key: PRNGKeyArray) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
        """First, middle and last frame of held-out clips: each row what came, then what was reconstructed."""
        last = self.held_out.shape[1] - 1
        frames = [0, last // 2, last]
        rows = [[video[frames], self._reconstruct(params, video)[frames]] for video in self.held_out[:SHOWN]]
        return {"reconstruction": np.asarray(image_grid(list(np.concatenate(sum(rows, []))), 2 * len(frames)))}

    def finish(self, params: Params) -> Params:
        """Sets `latent_mean` and `latent_std`, per channel, from training batches."""
        batches = self.batches(self.cfg.seed)
        total, squares, count = 0.0, 0.0, 0
        for _ in range(STATISTICS):
            mean = fetch(_mean(params, self.cfg.model.vae, next(batches)["video"])).astype(np.float64)
            total += mean.sum(axis=(0, 1, 2, 3))
            squares += (mean**2).sum(axis=(0, 1, 2, 3))
            count += mean.size // mean.shape[-1]
        mean = total / count
        deviation = np.sqrt(squares / count - mean**2)
        return {
            **params,
            "latent_mean": jnp.asarray(mean, jnp.float32),
            "latent_std": jnp.asarray(deviation, jnp.float32),
        }

    def check_inputs(self) -> None:
        """See `run.Stage`: there are clips, long enough, of the model's size and rate."""
        _ = self.held_out
        loader.Clips(self.cfg.data, fps=self.cfg.model.video.fps)[0]

    @functools.cached_property
    def held_out(self) -> UInt8[np.ndarray, "N T H W 3"]:
        """The clips that are measured and looked at, as long as all of them are."""
        cfg = self.cfg
        clips = loader.Clips(cfg.data_val, fps=cfg.model.video.fps)
        videos = [clips[i].video for i in range(min(HELD_OUT, len(clips)))]
        expected = (cfg.model.video.height, cfg.model.video.width)
        for index, video in enumerate(videos):
            if len(video) < cfg.frames or video.shape[1:3] != expected:
                raise InputError(
                    f"{cfg.data_val}: clip {index} has {len(video)} frames of {video.shape[1]} x {video.shape[2]} "
                    f"pixels, expected at least {cfg.frames} of {expected[0]} x {expected[1]}"
                )
        stride = cfg.model.vae.temporal_stride
        whole = (min(HELD_OUT_FRAMES, *(len(video) for video in videos)) - 1) // stride * stride + 1
        return np.stack([video[:whole] for video in videos])

    def _reconstruct(self, params: Params, video: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T H W 3"]:
        return fetch(_round_trip(params, self.cfg.model.vae, video[None]))[0]


def reconstruction_loss(
    params: Params,
    cfg: VAEConfig,
    video: Float[Array, "B T H W 3"],
    key: PRNGKeyArray,
    weights: VAERunConfig,
    compute: str = "float32",
) -> tuple[Float[Array, ""], Scalars]:
    """The loss and its metrics on whole clips.

    `latent_mean` and `latent_std` take no part, so their gradients are zero: keep weight decay off them.

    Args:
      params: of `models.vae.VAE`.
      cfg: static under jit.
      video: T = 4 (L - 1) + 1 frames in [-1, 1].
      key: of the draw from the posterior.
      weights: `l1`, `mse`, and `kl` of the divergence from N(0, 1), in nats, mean over the latent's numbers.
      compute: the dtype of the convolutions; errors, the draw and the divergence are in float32.

    Returns:
      The loss, and `l1`, `mse` (pixels in [-1, 1]), `kl`, `psnr_db` (of the clipped draw, mean over frames),
      `posterior_std` (mean).
    """
    mean, logvar = (x.astype(jnp.float32) for x in vae.encode_moments(params, cfg, video.astype(compute)))
    # Beyond these bounds (diffusers' own) the exponential overflows or the draw has no spread.
    logvar = jnp.clip(logvar, -30.0, 20.0)
    std = jnp.exp(0.5 * logvar)
    draw = mean + std * jax.random.normal(key, mean.shape, mean.dtype)
    frames = vae.decode_sample(params, cfg, draw.astype(compute)).astype(jnp.float32)
    error = frames - video
    l1, mse = jnp.abs(error).mean(), (error**2).mean()
    kl = 0.5 * (mean**2 + std**2 - 1 - logvar).mean()
    metrics = {"l1": l1, "mse": mse, "kl": kl, "psnr_db": psnr(frames, video).mean(), "posterior_std": std.mean()}
    return weights.l1 * l1 + weights.mse * mse + weights.kl * kl, metrics


@jax.jit(static_argnums=1)
def _mean(params: Params, cfg: VAEConfig, video: UInt8[Array, "B T H W 3"]) -> Float[Array, "B L h w C"]:
    return vae.encode_moments(params, cfg, to_float(video))[0]


@jax.jit(static_argnums=1)
def _round_trip(params: Params, cfg: VAEConfig, video: UInt8[Array, "B T H W 3"]) -> UInt8[Array, "B T H W 3"]:
    return to_uint8(vae.decode_video(params, cfg, vae.encode_video(params, cfg, to_float(video))))
