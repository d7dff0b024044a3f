"""Stage `vae`: Wan's VAE on windows of clips, and at the end the statistics of its latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from relic_jax.config import VAEConfig
from relic_jax.data import loader
from relic_jax.data.part import WHOLE, Part
from relic_jax.errors import InputError
from relic_jax.models import module, vae
from relic_jax.models.module import Params
from relic_jax.pixels import to_float, to_uint8
from relic_jax.train import metrics
from relic_jax.train.checkpoint import load_params
from relic_jax.train.host import fetch
from relic_jax.train.stage import Batches, Stage, TrainConfig
from relic_jax.train.vae import loss

HELD_OUT = 8  # clips that `evaluate` measures
HELD_OUT_FRAMES = 81  # of each, at most: more than a training window, for the decoder runs on for ever
SHOWN = 4  # of them in the picture
STATISTICS = 32  # batches that the latents' mean and deviation are measured on


@dataclasses.dataclass(frozen=True)
class VAEStage(Stage):
    """See `stage.Stage`; batches have `video`, uint8 [B, T, H, W, 3]. `anchor`: see `train.vae.loss`."""

    cfg: TrainConfig
    held_out: UInt8[np.ndarray, "N T H W 3"]
    anchor: Params | None = None

    @property
    def compiler_options(self) -> dict[str, Any]:
        narrow = self.cfg.model.precision.compute == "bfloat16"
        return vae.ONEDNN if narrow and jax.default_backend() == "cpu" else {}

    def init(self, key: PRNGKeyArray) -> Params:
        return module.init(vae.VAE, self.cfg.model.vae, key)

    def loss(
        self, params: Params, batch: Mapping[str, Array], key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        model, video = self.cfg.model, to_float(batch["video"])
        return loss(params, model.vae, video, key, self.cfg.vae, self.anchor, model.precision.compute)

    def batches(self, seed: int, part: Part = WHOLE) -> Batches:
        cfg = self.cfg
        return loader.batches(cfg.data, batch=cfg.batch, seed=seed, frames=cfg.frames, fields=("video",), part=part)

    def evaluate(self, params: Params, key: PRNGKeyArray) -> dict[str, float]:
        """`val_psnr_db`: mean over held-out clips of what encode and decode keep."""
        psnr = [_psnr_db(video, self._reconstruct(params, video)) for video in self.held_out]
        return {"val_psnr_db": float(np.mean(psnr))}

    def sample(self, params: Params, key: PRNGKeyArray) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
        """First, middle and last frame of held-out clips: each row what came, then what was reconstructed."""
        last = self.held_out.shape[1] - 1
        frames = [0, last // 2, last]
        rows = [
            np.concatenate([video[frames], self._reconstruct(params, video)[frames]]) for video in self.held_out[:SHOWN]
        ]
        return {"reconstruction": metrics.grid(np.stack(rows))}

    def finish(self, params: Params) -> Params:
        """Sets `latent_mean` and `latent_std`, per channel, from training batches, unless the latents stayed."""
        if self.cfg.vae.decoder_only or self.cfg.vae.anchor:
            return params
        batches = self.batches(self.cfg.seed)
        total, squares, count = 0.0, 0.0, 0
        for _ in range(STATISTICS):
            mean = np.float64(fetch(_mean(params, self.cfg.model.vae, next(batches)["video"])))
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

    def _reconstruct(self, params: Params, video: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T H W 3"]:
        return fetch(_round_trip(params, self.cfg.model.vae, video[None]))[0]


def make(cfg: TrainConfig) -> VAEStage:
    """The stage.

    Raises:
      InputError: no clips at `data` or `data_val`, too short, or of another size than the model's; or there are no
        weights to hold on to.
    """
    clips = loader.Clips(cfg.data_val)
    videos = [clips[i].video for i in range(min(HELD_OUT, len(clips)))]
    expected = (cfg.model.video.height, cfg.model.video.width)
    for index, video in enumerate(videos):
        if len(video) < cfg.frames or video.shape[1:3] != expected:
            raise InputError(
                f"{cfg.data_val}: clip {index} has {len(video)} frames of {video.shape[1]} x {video.shape[2]} pixels, "
                f"expected at least {cfg.frames} of {expected[0]} x {expected[1]}"
            )
    stride = cfg.model.vae.temporal_stride
    whole = (min(HELD_OUT_FRAMES, *(len(video) for video in videos)) - 1) // stride * stride + 1
    anchor = load_params(cfg.init_from, module.abstract(vae.VAE, cfg.model.vae)) if cfg.vae.anchor else None
    return VAEStage(cfg, np.stack([video[:whole] for video in videos]), anchor)


@jax.jit(static_argnums=1)
def _mean(params: Params, cfg: VAEConfig, video: UInt8[Array, "B T H W 3"]) -> Float[Array, "B L h w C"]:
    return vae.encode_moments(params, cfg, to_float(video))[0]


@jax.jit(static_argnums=1)
def _round_trip(params: Params, cfg: VAEConfig, video: UInt8[Array, "B T H W 3"]) -> UInt8[Array, "B T H W 3"]:
    frames = vae.decode_video(params, cfg, vae.encode_video(params, cfg, to_float(video)))
    return to_uint8(frames)


def _psnr_db(a: UInt8[np.ndarray, "T H W 3"], b: UInt8[np.ndarray, "T H W 3"]) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / error))
