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
_FAINT = 0.01  # of an axis's energy: added to statistics, so that the logarithm of nothing has a bounded slope
_STEADY = (1.0, 1.0, 3.0)  # weights of energy, contrast and detail; detail is lost first and comes back last

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


def steadiness_gradient(video: Latents, clip: Latents, span: int, by_size: float = 0.0, level: bool = False) -> Latents:
    """Gradient of how much paler or softer, or the opposite, the later spans of a video are than its first.

    The share of the real clip's energy, contrast and detail that the first `span` latents have, all others shall have
    too. Small losses of a stream that lives on its own output multiply with every block, and a critic that has had a
    dozen updates sees them last: pictures grow soft in seconds and pale in a minute. These statistics show them at
    once, and say nothing of what is to be seen, so nothing blurs. They are taken along the real clips' principal axes:
    a colour is a mixture of channels, and can fade while each of them keeps what it has. The loss is the sum, over all
    numbers of the later spans, of log(share / first share)^2 / 2 of each axis's statistics, weighted; the first share,
    a mean over the batch, is a constant.

    Args:
      span: latents. What is left over at the end takes no part, nor does the picture.
      by_size: share of an axis's weight that goes by how much of the real clips' energy, contrast or detail it has.
        At 0 all count alike, and so do fine structures, which are faint; at 1 colours count that can be seen at once.
      level: the clips' own trend is no target. Clips begin where there is much to see, and a student that follows them
        grows softer the later it is, also where the world doesn't.
    """
    count = video.shape[1] // span
    if count < 2:
        return jnp.zeros_like(video)

    energies, axes = jnp.linalg.eigh(jnp.einsum("blhwc,blhwd->cd", clip, clip) / clip[..., 0].size)
    real = _statistics(clip @ axes, span, count) + _FAINT * energies
    size = real.mean((1, 2))
    if level:
        real *= real[:, :, :1].mean(1, keepdims=True) / real.mean(1, keepdims=True)
    weights = jnp.asarray(_STEADY)[:, None] * (1 - by_size + by_size * size / size.mean(-1, keepdims=True))

    def loss(video: Latents) -> Float[Array, ""]:
        made = _statistics(video @ axes, span, count) + _FAINT * energies
        first = jax.lax.stop_gradient(made[:, :, 0].mean(1) / real[:, :, 0].mean(1))
        share = made[:, :, 1:] / (real[:, :, 1:] * first[:, None, None])
        total = 0.5 * jnp.einsum("nc,nbsc->", weights, jnp.log(share) ** 2)
        return total * span * video.shape[2] * video.shape[3]

    gradient = jax.grad(loss)(video)
    return jnp.where(jnp.isfinite(gradient), gradient, 0).at[:, 0].set(0)


def _statistics(video: Latents, span: int, count: int) -> Float[Array, "3 B S C"]:
    """Of each channel in each span the mean square: as it is, without the latent's mean, and of the steps to the next
    cell across and down."""
    across, down = (jnp.diff(video, axis=axis) ** 2 for axis in (3, 2))
    energy, contrast = (video**2).mean(axis=(2, 3)), video.var(axis=(2, 3))
    detail = across.mean(axis=(2, 3)) + down.mean(axis=(2, 3))
    spans = [slice(max(i * span, 1), (i + 1) * span) for i in range(count)]
    return jnp.stack([jnp.stack([x[:, s].mean(1) for s in spans], axis=1) for x in (energy, contrast, detail)])


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
