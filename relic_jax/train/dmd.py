"""Distribution matching distillation (SPEC 6; DMD, arXiv 2311.18828, in the form of Self-Forcing, 2506.08009).

Two bidirectional models judge the student's video: the teacher, which knows how real video is distributed,
and the critic, which is trained on the student's own and so knows how that is distributed. Noise the video
and let both say what it was: where they differ, the student's video is likelier than it should be, and the
difference says which way to move it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from relic_jax.config import RelicConfig
from relic_jax.diffusion import flow
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params, bind
from relic_jax.train.clips import Conditions

LOWEST, HIGHEST = 0.02, 0.98  # noise levels at which videos are judged

Latents = Float[Array, "B L H W C"]
Level = Float[Array, "B L"]
Velocity = Callable[[Latents, Level, Conditions], Latents]  # a model's prediction for a whole sequence


def velocity(params: Params, cfg: RelicConfig, *, checkpoint: bool = False) -> Velocity:
    """The prediction of a bidirectional model, in the configured compute precision."""
    model = bind(DiT, cfg.dit, cast_kernels(params, cfg.precision.compute))

    def predict(x: Latents, level: Level, given: Conditions) -> Latents:
        conditions = (given.text, given.actions, given.poses, given.pose_weight)
        return model.video(x, level * flow.STEPS, *conditions, checkpoint=checkpoint)

    return predict


def guided(model: Velocity, guidance: float) -> Velocity:
    """The model with classifier-free guidance on the text, 1 is none; actions and poses are always given."""
    if guidance == 1:
        return model

    def predict(x: Latents, level: Level, given: Conditions) -> Latents:
        unconditional = model(x, level, dataclasses.replace(given, text=jnp.zeros_like(given.text)))
        return unconditional + guidance * (model(x, level, given) - unconditional)

    return predict


def score_gradient(
    teacher: Velocity, critic: Velocity, video: Latents, given: Conditions, key: PRNGKeyArray, shift: float = flow.SHIFT
) -> Latents:
    """The loss's gradient with respect to each latent of the student's video: (x0_fake - x0_real) / mean|x0 - x0_real|.

    The scale is a clip's own: it makes all noise levels count alike. The picture takes no part, and what is
    not finite is 0.

    Args:
      teacher: frozen, guided. critic: not guided.
      video: clean latents of whole clips, the first of them the picture.
    """
    level, noise = _noise(key, video, shift)
    noisy = flow.add_noise(video, noise, level)
    real, fake = (flow.predict_clean(noisy, model(noisy, level, given), level) for model in (teacher, critic))
    scale = jnp.abs(video - real)[:, 1:].mean(axis=(1, 2, 3, 4), keepdims=True)
    gradient = (fake - real) / scale
    return jnp.where(jnp.isfinite(gradient), gradient, 0).at[:, 0].set(0)


def regression_gradient(video: Latents, clip: Latents, counted: Bool[Array, "B L"]) -> Latents:
    """Gradient of half the squared error to the clip, of the latents that count; the picture never does.

    What a picture and the way from it determine, there is one truth of, and so there is of what the clip has shown
    before; matching distributions alone is content with any likely video (DMD regresses for this reason too, on its
    teacher's trajectories). Elsewhere the truth is one of many, and its mean would be a blur.
    """
    return jnp.where(counted.at[:, 0].set(False)[..., None, None, None], video - clip, 0)


def critic_loss(
    critic: Velocity, video: Latents, given: Conditions, key: PRNGKeyArray, shift: float = flow.SHIFT
) -> Float[Array, ""]:
    """Flow matching on the student's video; the picture takes no part."""
    level, noise = _noise(key, video, shift)
    predicted = critic(flow.add_noise(video, noise, level), level, given)
    return ((predicted - flow.velocity(video, noise)) ** 2)[:, 1:].mean()


def _noise(key: PRNGKeyArray, video: Latents, shift: float) -> tuple[Level, Latents]:
    """One level for all latents of a clip but the picture, which is clean; and noise."""
    keys = jax.random.split(key)
    level = flow.shift(jax.random.uniform(keys[0], (video.shape[0], 1)), shift)
    level = jnp.broadcast_to(jnp.clip(level, LOWEST, HIGHEST), video.shape[:2])
    return level.at[:, 0].set(0), jax.random.normal(keys[1], video.shape)
