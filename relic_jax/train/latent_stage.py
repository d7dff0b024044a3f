"""What the stages on encoded clips share: data, held-out measurements and pictures; only loss and sampler differ."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from relic_jax.config import ConfigError
from relic_jax.data import loader
from relic_jax.data.part import WHOLE, Part
from relic_jax.errors import InputError
from relic_jax.models import module, vae
from relic_jax.models.dit import DiT
from relic_jax.models.module import Params
from relic_jax.pixels import to_uint8
from relic_jax.train import metrics
from relic_jax.train.checkpoint import load_params
from relic_jax.train.clips import Conditions, conditions
from relic_jax.train.host import everywhere, fetch
from relic_jax.train.optimizer import matrices
from relic_jax.train.stage import Batches, Stage, TrainConfig

HELD_OUT = 4  # clips that are generated to be measured and looked at
SHOWN_EVERY = 12  # frames
MEASURED = slice(1, 33)  # frames: the first two seconds after the picture, which determines most of what they show


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: a stage is a static argument of `_generate`
class LatentStage(Stage):
    """See `stage.Stage`; batches are those of `data.loader.latent_batches`."""

    cfg: TrainConfig
    vae: Params
    held_out: dict[str, Any]

    fields: ClassVar[Sequence[str]] = loader.LATENT_FIELDS  # of a training batch

    @abstractmethod
    def generate(
        self, params: Params, image: Float[Array, "B H W C"], given: Conditions, key: PRNGKeyArray
    ) -> Float[Array, "B L H W C"]:
        """Latents of whole clips from their first latents and conditions."""

    def init(self, key: PRNGKeyArray) -> Params:
        return module.init(DiT, self.cfg.model.dit, key)

    def batches(self, seed: int, part: Part = WHOLE) -> Batches:
        cfg = self.cfg
        return loader.latent_batches(
            cfg.data,
            batch=cfg.batch,
            seed=seed,
            latents=cfg.model.vae.latents_of(cfg.frames),
            fields=self.fields,
            balanced=cfg.balance_actions,
            part=part,
        )

    def decay_mask(self, params: Params) -> Any:
        return matrices(self.logical_axes(params))

    def logical_axes(self, params: Params) -> Any:
        return module.logical_axes(DiT, self.cfg.model.dit)

    def evaluate(self, params: Params, key: PRNGKeyArray) -> dict[str, float]:
        """`val_psnr_db` of generated against decoded true frames, and `val_gain_db` over repeating the picture."""
        truth, made = self._videos(params, key)
        still = np.broadcast_to(truth[:, :1], truth.shape)
        made_db, still_db = (_psnr_db(truth[:, MEASURED], x[:, MEASURED]) for x in (made, still))
        return {"val_psnr_db": made_db, "val_gain_db": made_db - still_db}

    def sample(self, params: Params, key: PRNGKeyArray) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
        """Held-out clips through time: a row of the truth, a row of what the model makes of the same actions."""
        truth, made = (x[:, ::SHOWN_EVERY] for x in self._videos(params, key))
        return {"generated": metrics.grid(np.stack([truth, made], axis=1).reshape(-1, *truth.shape[1:]))}

    def _videos(self, params: Params, key: PRNGKeyArray) -> tuple[np.ndarray, np.ndarray]:
        given = conditions(self.held_out, self.cfg.model)
        latents = self.held_out["latents"]
        made = _generate(self, params, latents[:, 0], given, key)
        decoder = everywhere(self.vae)
        truth, made = (fetch(_decode(decoder, self.cfg.model.vae, x)) for x in (latents, made))
        return truth, made


@partial(jax.jit, static_argnums=0)
def _generate(stage: LatentStage, params: Params, image: Array, given: Conditions, key: PRNGKeyArray) -> Array:
    return stage.generate(params, image, given, key)


@partial(jax.jit, static_argnums=1)
def _decode(params: Params, cfg: Any, latents: Float[Array, "B L H W C"]) -> UInt8[Array, "B T h w 3"]:
    frames = vae.decode_video(params, cfg, latents)
    return to_uint8(frames)


def _psnr_db(a: UInt8[np.ndarray, "B T H W 3"], b: UInt8[np.ndarray, "B T H W 3"]) -> float:
    """Mean over frames."""
    error = np.mean((a.astype(np.float64) - b) ** 2, axis=(2, 3, 4))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-2))))


def arguments(cfg: TrainConfig, vae_path: str) -> tuple[TrainConfig, Params, dict[str, Any]]:
    """What a stage is made of, after every check that needs no compilation.

    Raises:
      ConfigError: `frames` is not 4 L + 1.
      InputError: no encoded clips of that length, or no VAE that fits.
    """
    stride = cfg.model.vae.temporal_stride
    if (cfg.frames - 1) % stride:
        raise ConfigError(f"config.frames={cfg.frames}: expected {stride} L + 1 frames, as the VAE takes them")
    length = cfg.model.vae.latents_of(cfg.frames)
    if not vae_path:
        raise InputError(f"config.{cfg.stage}.vae is empty: expected the workdir or safetensors file of a trained VAE")
    loader.Latents(cfg.data, length)[0]  # a look at the first record: later ones are read when the model is compiled
    decoder = load_params(vae_path, module.abstract(vae.VAE, cfg.model.vae))
    held_out = jax.tree.map(
        jnp.asarray, next(loader.latent_batches(cfg.data_val, batch=HELD_OUT, seed=0, latents=length))
    )
    expected = (*cfg.model.latent_size, cfg.model.dit.latent_channels)
    if held_out["latents"].shape[2:] != expected:
        raise InputError(f"{cfg.data_val}: latents of shape {held_out['latents'].shape[2:]}, expected {expected}")
    return cfg, decoder, held_out
