"""A bundle: the folder that holds one usable model.

    config.json  dit.safetensors  vae.safetensors  text.safetensors  tokenizer.json  README.md (the model card)

It is what training exports, what the converters write, and all that a session needs.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from relic_jax import files
from relic_jax.config import ConfigError, RelicConfig, from_config_dict
from relic_jax.errors import InputError
from relic_jax.models import tokenizer as tokenizers
from relic_jax.models import weights
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params, abstract
from relic_jax.models.tokenizer import Tokenizer
from relic_jax.models.umt5 import text_encoder
from relic_jax.models.vae import VAE

PARTS: dict[str, Callable[..., nnx.Module]] = {"dit": DiT, "vae": VAE, "text": text_encoder}

# How a model is run rather than what it is: a config may differ from the bundle's in these.
_RUN_FIELDS = {"yarn_scale", "yarn_beta_fast", "yarn_beta_slow"}


@dataclasses.dataclass(frozen=True)
class Bundle:
    """One model in memory: `params` has the keys `dit`, `vae` and `text`."""

    config: RelicConfig
    params: Params
    tokenizer: Tokenizer

    @functools.cached_property
    def serving(self) -> Params:
        """The weights as a session uses them, of all but the text encoder: the transformer's matrices in the compute
        precision. Made once for all sessions of the model."""
        dtype = jnp.dtype(self.config.precision.compute)
        return {"dit": cast_kernels(self.params["dit"], dtype), "vae": self.params["vae"]}


def load(path: str | os.PathLike[str], cfg: RelicConfig | None = None) -> Bundle:
    """The model of a bundle.

    Args:
      path: the folder.
      cfg: how it is to be run, in place of the bundle's own config; its architecture must be the same.

    Raises:
      InputError: a file is missing or unreadable, or its first parameter that doesn't fit, with both shapes.
    """
    path = Path(path)
    stored = read_config(path)
    cfg = stored if cfg is None else cfg
    params = {part: _load_part(path, part, cfg) for part in PARTS}
    _check_architecture(path, stored, cfg)
    tokenizer = tokenizers.load(path / "tokenizer.json")
    if tokenizer.vocab > cfg.text.vocab:
        raise InputError(
            f"{path / 'tokenizer.json'} has {tokenizer.vocab} tokens, expected at most text.vocab={cfg.text.vocab}"
        )
    return Bundle(cfg, params, tokenizer)


def save(path: str | os.PathLike[str], bundle: Bundle, card: str, dtype: Any | None = None) -> None:
    """Writes the folder, under a temporary name that is renamed when it is complete.

    Args:
      path: a folder that doesn't exist yet.
      card: the model card (Markdown): data, commands, time, metrics.
      dtype: stored dtype of the parameters; None keeps theirs. They are float32 again when loaded.

    Raises:
      InputError: the folder exists or can't be written, or the parameters don't fit the config.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists already; expected a new folder, nothing is overwritten")
    temporary = files.temporary(path)
    try:
        temporary.mkdir(parents=True)
        config = json.dumps(dataclasses.asdict(bundle.config), indent=2)
        (temporary / "config.json").write_text(config + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(card, encoding="utf-8")
        for part in PARTS:
            weights.check_fits(bundle.params[part], _expected(part, bundle.config), f"bundle.params[{part!r}]")
            weights.save_safetensors(temporary / f"{part}.safetensors", bundle.params[part], dtype=dtype)
        bundle.tokenizer.save(temporary / "tokenizer.json")
        temporary.rename(path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_config(path: str | os.PathLike[str]) -> RelicConfig:
    """The config of the bundle in folder `path`.

    Raises:
      InputError: there is none, or it can't be read or used.
    """
    file = Path(path) / "config.json"
    if not file.is_file():
        raise InputError(f"{file} does not exist; expected a bundle, a folder with {', '.join(_files())}")
    try:
        return from_config_dict(RelicConfig, json.loads(file.read_text(encoding="utf-8")))
    except ConfigError as error:
        raise InputError(f"{file}: {error}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} is not a readable config: {error}") from error


def _load_part(path: Path, part: str, cfg: RelicConfig) -> Params:
    loaded = weights.load_safetensors(path / f"{part}.safetensors", _expected(part, cfg))
    return jax.tree.map(jnp.asarray, loaded)


def _expected(part: str, cfg: RelicConfig) -> Params:
    return abstract(PARTS[part], getattr(cfg, part))


def _check_architecture(path: Path, stored: RelicConfig, cfg: RelicConfig) -> None:
    """What shapes don't show: a model of 4 heads fits the parameters of one of 8."""
    for part in PARTS:
        ours, theirs = dataclasses.asdict(getattr(cfg, part)), dataclasses.asdict(getattr(stored, part))
        for field, value in ours.items():
            if field not in _RUN_FIELDS and theirs[field] != value:
                file, came = path / "config.json", theirs[field]
                raise InputError(f"{file} doesn't fit the config: {part}.{field} is {came}, expected {value}")


def _files() -> list[str]:
    return ["config.json", *(f"{part}.safetensors" for part in PARTS), "tokenizer.json"]
