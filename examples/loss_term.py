"""Add a term to the student's loss: a module with `Config` and `Term`, and a config that names it. Nothing else is new.

    python -m launch.train --config=examples/loss_term.py --workdir=runs/tiny_distill_still

This one keeps a standing camera's video still: where no action moves the camera, a latent should be like the one before
it. It is an example, not advice: a loss on appearances is easily met by something that nobody wants.
"""

from __future__ import annotations

import dataclasses
import runpy
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, PRNGKeyArray

from relic_jax.camera.actions import STATIC
from relic_jax.config import above
from relic_jax.models.module import Params
from relic_jax.train import terms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Half the squared difference of a latent to the one before it, where the camera stands still."""

    weight: float

    def __post_init__(self) -> None:
        above(self, "config.terms.examples/loss_term", 0, "weight")


class Term(terms.Term):
    """See `relic_jax.train.terms.Term`."""

    cfg: Config

    def gradient(
        self, sample: terms.Sample, models: Mapping[str, Params], key: PRNGKeyArray
    ) -> tuple[terms.Latents, dict[str, Float[Array, ""]]]:
        """The difference itself: the latent before counts as given, so that errors don't run backwards."""
        del models, key
        video, stride = sample.rollout.latents, self.model.vae.temporal_stride
        static = sample.clips["actions"][:, 1:, STATIC].reshape(len(video), -1, stride).min(-1)  # [B, L - 1]
        change = jnp.diff(video, axis=1) * static[..., None, None, None]
        gradient = jnp.pad(change, ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))
        return self.cfg.weight * gradient, {"still": (change**2).sum() / 2 / change.size}


def get_config() -> ml_collections.ConfigDict:
    """configs/tiny_distill.py:5s with this term beside the paper's own."""
    base = runpy.run_path(str(Path(__file__).parents[1] / "configs" / "tiny_distill.py"))["get_config"]("5s")
    base.terms["examples/loss_term"] = ml_collections.ConfigDict(dataclasses.asdict(Config(weight=0.1)))
    return base
