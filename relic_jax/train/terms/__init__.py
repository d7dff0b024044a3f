"""The terms of the student's loss in distillation, a module each.

A term's module has `Config`, a frozen dataclass, and `Term`, made of one; a distillation's config names it in `terms`.
What a term says is the gradient of its loss with respect to each latent of the student's video; replay carries it on to
the parameters. RELIC's paper has one term, `score`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from relic_jax.config import ConfigError, RelicConfig, from_config_dict
from relic_jax.models.module import Params
from relic_jax.train.replay import Rollout

Latents = Float[Array, "B L H W C"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """What a term is given: some clips that were rolled out together.

    Fields:
      rollout: the student's video of them.
      seen: what teacher and critic see of it (`score.View`).
      clips: the batch's rows, as `data.loader.latent_batches` gives them.
    """

    rollout: Rollout
    seen: Any
    clips: dict[str, Array]


class Term:
    """One part of the student's loss. Making one reads nothing."""

    def __init__(self, cfg: Any, model: RelicConfig) -> None:
        """Of its own config and the student's model."""
        self.cfg, self.model = cfg, model

    def gradient(
        self, sample: Sample, models: Mapping[str, Params], key: PRNGKeyArray
    ) -> tuple[Latents, dict[str, Float[Array, ""]]]:
        """The gradient of the term's loss, summed over the latents, by each latent of the student's video.

        The picture's is 0. The step divides by the count of numbers that are not the picture's: a mean.

        Args:
          models: weights of `teacher` and `critic`.

        Returns:
          The gradient, weighted as the config says, and scalars worth plotting, whose names are the term's own.
        """
        raise NotImplementedError


def configs(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The terms that are not None, each as its module's `Config`; a mapping is taken for its fields.

    A name is that of a module here, or for a term from elsewhere its module's whole path, as in `examples/loss_term`.

    Raises:
      ConfigError: there is no such term, or its config is wrong.
    """
    made = {}
    for name, value in terms.items():
        if value is not None:
            kind = _module(name).Config
            made[name] = value if isinstance(value, kind) else from_config_dict(kind, value, f"config.terms.{name}")
    return made


def make(terms: Mapping[str, Any], model: RelicConfig) -> dict[str, Term]:
    """The terms of these configs."""
    return {name: _module(name).Term(cfg, model) for name, cfg in terms.items()}


def _module(name: str) -> Any:
    path = name.replace("/", ".") if "/" in name else f"{__name__}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise ConfigError(f"config.terms.{name}: no such term; expected score, regression or a path") from error
