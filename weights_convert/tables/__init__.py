"""The models that can be converted: their module, published size, layouts and where they are published."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from flax import nnx

from relic_jax.config import DiTConfig, TextConfig, TinyVAEConfig, VAEConfig
from relic_jax.models.dit import DiT
from relic_jax.models.module import Params, abstract
from relic_jax.models.tiny_vae import TinyVAE
from relic_jax.models.umt5 import UMT5
from relic_jax.models.vae import VAE
from weights_convert.table import Row, Tensor, expand
from weights_convert.tables import taew2_1, umt5, wan_dit, wan_vae


@dataclasses.dataclass(frozen=True)
class Layout:
    """One published form of a model.

    Fields:
      rows: the table for a model's configuration.
      file: the name of the weights: a .pth file, or the stem of safetensors files.
      folder: where they are inside a downloaded pipeline; "" is its top.
      config: what config.json says; None where there is none.
      repository: on huggingface.co.
      ignored: regular expressions of tensors that are left out, each with the reason.
    """

    rows: Callable[[Any], list[Row]]
    file: str
    repository: str
    folder: str = ""
    config: Callable[[Any], dict[str, object]] | None = None
    ignored: Mapping[str, str] = MappingProxyType({})

    @property
    def is_pickle(self) -> bool:
        return self.file.endswith(".pth")


@dataclasses.dataclass(frozen=True)
class Model:
    """A kind of model at its published size; `layouts` by name, the one that to-torch writes by default first."""

    module: type[nnx.Module]
    config: Any
    layouts: Mapping[str, Layout]

    def leaves(self) -> Params:
        """Our parameters, as shapes."""
        return abstract(self.module, self.config)

    def table(self, layout: str) -> list[Tensor]:
        """Every tensor of a layout and its place here."""
        return expand(self.layouts[layout].rows(self.config), self.leaves())


def _transformer(config: DiTConfig, size: str) -> Model:
    file = "diffusion_pytorch_model"
    repository = f"Wan-AI/Wan2.1-T2V-{size}"
    layouts = {
        "wan": Layout(wan_dit.wan, file, repository, config=wan_dit.wan_config),
        "diffusers": Layout(
            wan_dit.diffusers, file, f"{repository}-Diffusers", "transformer", wan_dit.diffusers_config
        ),
    }
    return Model(DiT, config, layouts)


_SMALL = "Wan-AI/Wan2.1-T2V-1.3B"  # the VAE and the text encoder are the same files in every Wan 2.1 repository

MODELS: dict[str, Model] = {
    "wan-t2v-14b": _transformer(DiTConfig.wan_14b(), "14B"),
    "wan-t2v-1.3b": _transformer(DiTConfig.wan_1_3b(), "1.3B"),
    "wan-vae": Model(
        VAE,
        VAEConfig.wan(),
        {
            "wan": Layout(wan_vae.wan, "Wan2.1_VAE.pth", _SMALL),
            "diffusers": Layout(
                wan_vae.diffusers, "diffusion_pytorch_model", f"{_SMALL}-Diffusers", "vae", wan_vae.diffusers_config
            ),
        },
    ),
    "umt5-xxl": Model(
        UMT5,
        TextConfig.umt5_xxl(),
        {
            "wan": Layout(umt5.wan, "models_t5_umt5-xxl-enc-bf16.pth", _SMALL),
            "diffusers": Layout(
                umt5.transformers,
                "model",
                f"{_SMALL}-Diffusers",
                "text_encoder",
                umt5.transformers_config,
                umt5.TRANSFORMERS_IGNORED,
            ),
        },
    ),
    "taew2_1": Model(
        TinyVAE,
        TinyVAEConfig.taew2_1(),
        {
            "taehv": Layout(taew2_1.rows, "taew2_1.pth", "lightx2v/Autoencoders"),
            "safetensors": Layout(taew2_1.rows, "taew2_1", "Kijai/WanVideo_comfy"),
        },
    ),
}
