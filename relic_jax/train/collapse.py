"""Watches a student that learns from its own video for collapse (SPEC 6): frozen, garish, drifting or empty frames.

Everything is measured on latents, where it is free at every step: normalised latents follow what they show
closely enough to tell a video from a still, a grey or a burnt one.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

Latents = Float[Array, "B L H W C"]
Scalar = Float[Array, ""]

# What the student's video may have of each measure, as a multiple of what real clips have.
LIMITS = {
    "dynamic_degree": (0.2, 5.0),
    "saturation": (0.4, 2.5),
    "drift": (0.0, 5.0),
    "detail": (0.2, 5.0),
}
_STILL = 0.05  # the least that counts of a real clip's measure: a camera that stands still has next to no motion


class Collapse(RuntimeError):
    """The student's video has become unlike any clip; the message says in which way."""


def dynamic_degree(video: Latents) -> Scalar:
    """Mean change from a latent to the next."""
    return jnp.abs(jnp.diff(video, axis=1)).mean()


def saturation(video: Latents) -> Scalar:
    """Root mean square: how far from neutral everything is."""
    return jnp.sqrt((video**2).mean())


def drift(video: Latents) -> Scalar:
    """How far the mean colour of the last quarter of a clip is from that of the first."""
    colour = video.mean(axis=(2, 3))
    quarter = max(video.shape[1] // 4, 1)
    return jnp.abs(colour[:, -quarter:].mean(axis=1) - colour[:, :quarter].mean(axis=1)).mean()


def detail(video: Latents) -> Scalar:
    """Mean deviation within a latent frame; a solid colour has none."""
    return video.std(axis=(2, 3)).mean()


def measure(video: Latents, truth: Latents) -> dict[str, Scalar]:
    """Each measure of the student's clips, relative to real clips of the same conditions; the picture is left out."""
    measures = dynamic_degree, saturation, drift, detail
    return {of.__name__: of(video[:, 1:]) / jnp.maximum(of(truth[:, 1:]), _STILL) for of in measures}


def check(means: Mapping[str, float]) -> None:
    """Stops a run whose measures have left their limits.

    Args:
      means: `measure`'s, averaged over some steps; other names are not looked at.

    Raises:
      Collapse: names the measure, its value and what it may be.
    """
    for name, (low, high) in LIMITS.items():
        if not low <= means[name] <= high:
            raise Collapse(
                f"the student has collapsed: {name} of its video is {means[name]:.3g} times that of real clips, "
                f"expected {low:g} to {high:g}"
            )
