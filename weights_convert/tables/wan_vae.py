"""Wan 2.1's video VAE, in the names of `Wan2.1_VAE.pth` and of diffusers' `AutoencoderKLWan`.

Our names are nearly diffusers'. Wan numbers the layers of each half in one sequence, and the layers inside
a residual block with those that have no parameters (0 norm, 2 convolution, 3 norm, 6 convolution).
The statistics that latents are normalised with are constants of the model, not tensors of its file; trained
ones are written as `relic.latent_mean` and `relic.latent_std`, while config.json keeps Wan's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from relic_jax.config import WAN_LATENT_MEAN, WAN_LATENT_STD, VAEConfig
from relic_jax.errors import InputError
from relic_jax.models import weights
from relic_jax.models.module import abstract
from relic_jax.models.vae import VAE
from weights_convert.table import CONV, FRAME_CONV, SAME, Row, Shape, Transform, trailing

_WAN_RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
_WAN_TOP = {"quant_conv": "conv1", "post_quant_conv": "conv2"}
_STATISTICS = {"latent_mean": WAN_LATENT_MEAN, "latent_std": WAN_LATENT_STD}


def diffusers(cfg: VAEConfig) -> list[Row]:
    return _rows(cfg, _diffusers_module)


def wan(cfg: VAEConfig) -> list[Row]:
    return _rows(cfg, lambda path: _wan_module(path, cfg))


def _rows(cfg: VAEConfig, rename: Callable[[list[str]], list[str]]) -> list[Row]:
    rows = []
    for name, _ in weights.leaves(abstract(VAE, cfg)):
        if name in _STATISTICS:
            rows.append(Row(f"relic.{name}", name, SAME, functools.partial(_published, values=_STATISTICS[name])))
            continue
        *path, kind = name.split(".")
        source = ".".join(rename(path))
        rows.append(Row(f"{source}.{'weight' if kind == 'kernel' else kind}", name, _transform(path, kind)))
    return rows


def _published(shape: Shape, values: tuple[float, ...]) -> np.ndarray:
    if shape != (len(values),):
        raise InputError(f"vae.latent_channels={shape[0]}: Wan's latent statistics are of {len(values)} channels")
    return np.asarray(values, np.float32)


def _transform(path: list[str], kind: str) -> Transform:
    if kind == "bias":
        return SAME
    inside_frame = "attention" in path
    if kind == "gamma":
        return trailing(2 if inside_frame else 3)
    return FRAME_CONV if inside_frame else CONV


def _diffusers_module(path: list[str]) -> list[str]:
    names = {"upsampler": "upsamplers.0", "attention": "attentions.0"}
    if "conv" in path:
        return [*(names.get(part, part) for part in path[:-1]), "resample.1"]
    return [names.get(part, part) for part in path]


def _wan_module(path: list[str], cfg: VAEConfig) -> list[str]:
    half, *inner = path
    if half in _WAN_TOP:
        return [_WAN_TOP[half]]
    match inner:
        case ["conv_in"]:
            return [half, "conv1"]
        case ["norm_out"]:
            return [half, "head.0"]
        case ["conv_out"]:
            return [half, "head.2"]
        case ["mid_block", "resnets", number, *layer]:
            return [half, "middle", str(2 * int(number)), *_wan_layer(layer)]
        case ["mid_block", "attention", *layer]:
            return [half, "middle.1", *layer]
        case ["down_blocks", number, *layer]:
            return [half, "downsamples", number, *_wan_layer(layer)]
        case ["up_blocks", level, "resnets", number, *layer]:
            return [half, "upsamples", str(_wan_level(level, cfg) + int(number)), *_wan_layer(layer)]
        case ["up_blocks", level, "upsampler", *layer]:
            return [half, "upsamples", str(_wan_level(level, cfg) + cfg.res_blocks + 1), *_wan_layer(layer)]
    raise AssertionError(f"no name for {path}")


def _wan_level(level: str, cfg: VAEConfig) -> int:
    """Where a level of the decoder begins: each has its residual blocks, one more than the encoder's, and a way up."""
    return int(level) * (cfg.res_blocks + 2)


def _wan_layer(layer: list[str]) -> list[str]:
    (name,) = layer
    return [{**_WAN_RESIDUAL, "conv_shortcut": "shortcut", "conv": "resample.1"}.get(name, name)]


def diffusers_config(cfg: VAEConfig) -> dict[str, object]:
    """config.json of an `AutoencoderKLWan`."""
    channels = 3 * cfg.patch_size**2
    config = {
        "_class_name": "AutoencoderKLWan",
        "attn_scales": [],
        "base_dim": cfg.base_dim,
        "dim_mult": list(cfg.multipliers),
        "in_channels": channels,
        "latents_mean": list(WAN_LATENT_MEAN),
        "latents_std": list(WAN_LATENT_STD),
        "num_res_blocks": cfg.res_blocks,
        "out_channels": channels,
        "scale_factor_spatial": cfg.spatial_stride,
        "scale_factor_temporal": cfg.temporal_stride,
        "temperal_downsample": list(cfg.temporal_down),
        "z_dim": cfg.latent_channels,
    }
    return config | ({"patch_size": cfg.patch_size} if cfg.patch_size > 1 else {})
