"""What the stages on encoded clips share: data, held-out measurements and pictures; loss and sampler differ."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from relic_jax.config import ConfigError, VAEConfig
from relic_jax.data import loader
from relic_jax.errors import InputError
from relic_jax.models import module, vae
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT
from relic_jax.models.module import Params
from relic_jax.parallel.part import WHOLE, Part
from relic_jax.parallel.placement import fetch
from relic_jax.pixels import psnr, to_uint8
from relic_jax.train import abstract, clips
from relic_jax.train.checkpoint import load_params
from relic_jax.train.run import Batches, ClipRunConfig, Stage
from relic_jax.video import image_grid

HELD_OUT = 4  # clips that are generated to be measured and looked at
SHOWN_EVERY = 12  # frames
MEASURED = slice(1, 33)  # frames: the first two seconds after the picture, which determines most of what they show
_EXACT_DB = 60.0  # what a frame counts that is met to the last bit


class LatentStage(Stage):
    """See `run.Stage`; batches are those of `data.loader.latent_batches`, frozen is the VAE."""

    cfg: ClipRunConfig
    fields: ClassVar[Sequence[str]] = loader.LATENT_FIELDS  # of a training batch

    def generate(
        self, params: Params, picture: Float[Array, "B H W C"], given: Conditions, key: PRNGKeyArray
    ) -> Float[Array, "B L H W C"]:
        """Latents of whole clips from their first latents and conditions."""
        raise NotImplementedError

    @property
    def parameters(self) -> Any:
        return abstract.parameters(DiT, self.cfg.model.dit)

    def abstract(self) -> abstract.Arguments:
        model = self.cfg.model
        return abstract.Arguments(
            self.abstract_state(),
            {"vae": abstract.copies(module.abstract(vae.VAE, model.vae))},
            abstract.rows(clips.shapes(model, self.cfg.frames, self.cfg.batch)),
        )

    def weights(self, key: PRNGKeyArray) -> Params:
        return module.init(DiT, self.cfg.model.dit, key)

    def load(self, shapes: Any) -> Any:
        return {"vae": load_params(self.cfg.vae, shapes["vae"])}

    def batches(self, seed: int, part: Part = WHOLE) -> Batches:
        cfg = self.cfg
        return loader.latent_batches(
            cfg.data,
            batch=cfg.batch,
            seed=seed,
            latents=self.length,
            fields=self.fields,
            balanced=cfg.balance_actions,
            part=part,
        )

    @property
    def length(self) -> int:
        """Latents of a clip."""
        return self.cfg.model.vae.latents_of(self.cfg.frames)

    def check_inputs(self) -> None:
        """See `run.Stage`: `frames` is 4 L + 1, there are encoded clips of that length, and a VAE that fits."""
        cfg, stride = self.cfg, self.cfg.model.vae.temporal_stride
        if (cfg.frames - 1) % stride:
            raise ConfigError(f"config.frames={cfg.frames}: expected {stride} L + 1 frames, as the VAE takes them")
        if not cfg.vae:
            raise InputError("config.vae is empty: expected the workdir or safetensors file of a trained VAE")
        loader.Latents(cfg.data, self.length)[0]  # the first record: later ones are read when the model is compiled
        load_params(cfg.vae, module.abstract(vae.VAE, cfg.model.vae))
        shape = self.held_out["latents"].shape[2:]
        expected = (*cfg.model.latent_size, cfg.model.dit.latent_channels)
        if shape != expected:
            raise InputError(f"{cfg.data_val}: latents of shape {shape}, expected {expected}")

    @functools.cached_property
    def held_out(self) -> dict[str, np.ndarray]:
        """The clips that are measured and looked at."""
        return next(loader.latent_batches(self.cfg.data_val, batch=HELD_OUT, seed=0, latents=self.length))

    def evaluate(self, params: Params, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        """`val_psnr_db` of generated against decoded true frames, and `val_gain_db` over repeating the picture."""
        truth, made = self._videos(params, frozen, key)
        still = np.broadcast_to(truth[:, :1], truth.shape)
        made_db, still_db = (
            float(np.minimum(psnr(x[:, MEASURED], truth[:, MEASURED]), _EXACT_DB).mean()) for x in (made, still)
        )
        return {"val_psnr_db": made_db, "val_gain_db": made_db - still_db}

    def sample(self, params: Params, frozen: Any, key: PRNGKeyArray) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
        """Held-out clips through time: a row of the truth, a row of what the model makes of the same actions."""
        truth, made = (x[:, ::SHOWN_EVERY] for x in self._videos(params, frozen, key))
        rows = np.stack([truth, made], axis=1)
        return {"generated": np.asarray(image_grid(list(rows.reshape(-1, *rows.shape[3:])), rows.shape[2]))}

    def _videos(self, params: Params, frozen: Any, key: PRNGKeyArray) -> tuple[np.ndarray, np.ndarray]:
        held_out = jax.tree.map(jnp.asarray, self.held_out)
        latents = held_out["latents"]
        made = self._generate(params, latents[:, 0], clips.conditions(held_out, self.cfg.model), key)
        truth, made = (fetch(_decode(frozen["vae"], self.cfg.model.vae, x)) for x in (latents, made))
        return truth, made

    @functools.cached_property
    def _generate(self) -> Any:
        return jax.jit(self.generate)


@functools.partial(jax.jit, static_argnums=1)
def _decode(params: Params, cfg: VAEConfig, latents: Float[Array, "B L H W C"]) -> UInt8[Array, "B T h w 3"]:
    return to_uint8(vae.decode_video(params, cfg, latents))
