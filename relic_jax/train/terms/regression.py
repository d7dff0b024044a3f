"""Regression to the clip, where the picture or a revisit determines the truth.

What a picture and the way from it determine, there is one truth of, and so there is of what the clip has shown before;
matching distributions alone is content with any likely video. (DMD regresses for this reason too, on its teacher's
trajectories: arXiv 2311.18828.) Elsewhere the truth is one of many, and its mean would be a blur. Not in RELIC's paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from relic_jax.config import above, at_least
from relic_jax.models.module import Params
from relic_jax.train import terms

AGO = 32  # frames: what is nearer in time, the window may still hold
NEAR_STEPS, NEAR_DEGREES = 1.5, 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Half the squared error to the clip.

    Fields:
      weight: of the loss.
      latents: the first ones of a clip, which the picture determines; latent 0 is the picture itself.
      revisits: and revisits of what the first so many latents look at; 0: none.
    """

    weight: float
    latents: int
    revisits: int = 0

    def __post_init__(self) -> None:
        above(self, "config.terms.regression", 0, "weight")
        at_least(self, "config.terms.regression", 1, "latents")
        at_least(self, "config.terms.regression", 0, "revisits")


class Term(terms.Term):
    """See `terms.Term`."""

    cfg: Config

    def gradient(
        self, sample: terms.Sample, models: Mapping[str, Params], key: PRNGKeyArray
    ) -> tuple[terms.Latents, dict[str, Float[Array, ""]]]:
        del models, key
        error = regression_gradient(sample.rollout.latents, sample.clips["latents"], self.known(sample.clips))
        return self.cfg.weight * error, {"regression": (error**2).sum() / 2 / error[:, 1:].size}

    def known(self, clips: Mapping[str, Array]) -> Bool[Array, "B L"]:
        """The latents whose truth is known: the first ones, and with `revisits` known places."""
        shape = clips["latents"].shape[:2]
        known = jnp.broadcast_to(jnp.arange(shape[1]) < self.cfg.latents, shape)
        if self.cfg.revisits:
            stride = self.model.vae.temporal_stride
            known |= revisits(clips, stride, self.model.memory.horizon, self.cfg.revisits)
        return known


def regression_gradient(video: terms.Latents, clip: terms.Latents, known: Bool[Array, "B L"]) -> terms.Latents:
    """Gradient of half the squared error to the clip, of the latents that are known; the picture's is 0."""
    return jnp.where(known.at[:, 0].set(False)[..., None, None, None], video - clip, 0)


def revisits(batch: Mapping[str, Array], stride: int, horizon: int, first: int) -> Bool[Array, "B L"]:
    """The latents whose last frame looks from where the camera has looked early in the clip, long enough ago.

    What they show is known from then, whatever else the clip shows. Long enough is AGO frames; the same place is
    within NEAR_STEPS of the clip's mean steps and NEAR_DEGREES.

    Args:
      stride: frames a latent; latent i ends with frame i * stride.
      horizon: latents; what lies farther back, memory has dropped.
      first: latents; what was first seen after them, a stream may have shown otherwise than the clip does.
    """
    rotations, positions = batch["rotations"], batch["positions"]
    now = jnp.arange(0, positions.shape[1], stride)
    cosine = (jnp.einsum("blij,btij->blt", rotations[:, now], rotations) - 1) / 2
    distance = jnp.linalg.norm(positions[:, now, None] - positions[:, None], axis=-1)
    near = distance < NEAR_STEPS * batch["unit"][:, None, None]
    ago = now[:, None] - jnp.arange(positions.shape[1])
    early = jnp.arange(positions.shape[1]) <= (first - 1) * stride
    remembered = (ago >= AGO) & (ago < horizon * stride) & early
    return (near & (cosine > np.cos(np.deg2rad(NEAR_DEGREES))) & remembered).any(-1)
