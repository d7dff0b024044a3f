"""Against fading: statistics that all spans of a student's video shall share with its first.

Small losses of a stream that lives on its own output multiply with every block, and a critic that has had a dozen
updates sees them last: pictures grow soft in seconds and pale in a minute. The statistics here show them at once, and
say nothing of what is to be seen, so nothing blurs. They are taken along the real clips' principal axes: a colour is a
mixture of channels, and can fade while each of them keeps what it has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_FAINT = 0.01  # of what is normal: added to statistics, so that the logarithm of nothing has a bounded slope
_WEIGHTS = (1.0, 1.0, 3.0)  # of energy, contrast and detail; detail is lost first and comes back last
_WAVES = sum(_WEIGHTS[1:])  # of all waves together: what contrast and detail have
_NOTHING = 1e-6  # of the mean power: where real clips have none
_MEMORY = 10  # rollouts that running means go back

Latents = Float[Array, "B L H W C"]
Loss = Callable[[Latents], Float[Array, ""]]


def moments_gradient(video: Latents, clip: Latents, span: int, by_size: float = 0.0) -> Latents:
    """Gradient of how much paler or softer, or the opposite, the later spans of a video are than its first.

    The share of the real clip's energy, contrast and detail that the first `span` latents have, all others shall have
    too. The loss is the sum, over all numbers of the later spans, of log(share / first share)^2 / 2 of each axis's
    statistics, weighted; the first share, a mean over the batch, is a constant.

    Args:
      span: latents. What is left over at the end takes no part, nor does the picture.
      by_size: share of an axis's weight that goes by how much of the real clips' energy, contrast or detail it has.
        At 0 all count alike, and so do fine structures, which are faint; at 1 colours count that can be seen at once.
    """
    count = video.shape[1] // span
    axes = _principal_axes(clip)
    return _gradient(_of_clips(_moments, _WEIGHTS, clip @ axes, span, count, by_size), video, axes, span)


def spectrum_gradient(video: Latents, clip: Latents, span: int, by_size: float = 0.0) -> Latents:
    """Gradient of how far the spatial spectrum of a video's spans is from what its first span has of the real clips'.

    `moments_gradient` asks for an amount of detail, and ripples of a token's size are detail: 2 x 2 cells are one
    token, its output layer makes checks of them at no cost, and a video keeps the amount while what is in it goes. Here
    each wave, of a direction and length, has a power of its own. None shall be weaker than in the first span; none
    shall be stronger than in real clips, in the first span either, so ripples aren't kept for being there from the
    beginning. The loss is as there, of the power of each coefficient of the cosine transform of each axis, a mean over
    a span and the clips; the share to have is the first span's, at most 1. Energy counts clip by clip as it does there:
    what is bright and what is dark are a scene's own.

    Args:
      span: latents. What is left over at the end takes no part, nor does the picture.
      by_size: share of a wave's weight that goes by how much of the real clips' energy and detail it has, half and
        half. At 0 all count alike, and most are short and faint; at 1 walls and floors count most.
    """
    count = video.shape[1] // span
    axes = _principal_axes(clip)
    of_clips = _of_clips(_energy, _WEIGHTS[:1], clip @ axes, span, count, by_size)
    real = _spectrum(clip @ axes, span, count)
    normal = real.mean(0)
    normal = jnp.maximum(normal, _NOTHING * normal.mean())
    real += _FAINT * normal
    # Mean square of the steps to the next cell: the transform makes a factor of it (the path graph's eigenvalues).
    down, across = (2 - 2 * jnp.cos(jnp.pi * jnp.arange(n) / n) for n in normal.shape[:2])
    detail = normal * (down[:, None] + across)[..., None]
    weights = (_shares(normal, by_size) + _shares(detail, by_size)) / 2
    weights *= _WAVES / (normal.shape[0] * normal.shape[1]) * video.shape[0]

    def loss(video: Latents) -> Float[Array, ""]:
        made = _spectrum(video, span, count) + _FAINT * normal
        first = jnp.minimum(jax.lax.stop_gradient(made[0] / real[0]), 1)
        return of_clips(video) + 0.5 * jnp.einsum("hwc,shwc->", weights, jnp.log(made / (real * first)) ** 2)

    return _gradient(loss, video, axes, span)


@dataclasses.dataclass(frozen=True)
class Watch:
    """Steadiness by running means: what a student does on average, which one batch doesn't show.

    What a few walks come to see differs by more than what a stream loses in a minute: between batches, the gradients
    above agree about little. Here the batch says only how each power changes with the video; which powers must change
    is the mean over the last rollouts that left off at the same evaluation.

    Powers are those of bands of waves, of each clip's first span and of all after it, along the axes of clips given
    once; total energy is one more. They are compared by logarithm, with the real clip's and then in the mean: in later
    spans as large a share of what real clips have as in the first, at most all of it; in the first at most all of it.
    """

    axes: Float[Array, "C C"]
    normal: Float[Array, "K C"]  # powers of the clips given: K - 1 bands, energy
    weights: Float[Array, "K C"]
    span: int
    bands: int

    @classmethod
    def of(cls, clip: Latents, span: int, bands: int, by_size: float = 0.0) -> Watch:
        """Of some real clips.

        Args:
          span: latents. What is left over at the end takes no part, nor does the picture.
          bands: of waves, in each direction; a picture's mean is in none.
          by_size: share of a band's weight that goes by how much of the energy and detail of clips it has.
        """
        axes = _principal_axes(clip)
        normal = _powers(clip @ axes, span, bands).mean((0, 1))
        normal = jnp.maximum(normal, _NOTHING * normal.mean())
        waves = normal[:-1]
        steps = 2 - 2 * jnp.cos(jnp.pi * (jnp.arange(bands) + 0.5) / bands)  # as in `spectrum_gradient`
        detail = waves * (steps[:, None] + steps).reshape(-1, 1)
        of_waves = (_shares(waves, by_size) + _shares(detail, by_size)) / 2 * _WAVES / len(waves)
        weights = jnp.concatenate([of_waves, _WEIGHTS[0] * _shares(normal[-1:], by_size)])
        return cls(axes, normal, weights, span, bands)

    def start(self, exits: int) -> dict[str, Array]:
        """Means before the first rollout, for each evaluation that rollouts leave off at."""
        return {"share": jnp.zeros((exits, 2, *self.normal.shape)), "count": jnp.zeros(exits)}

    def see(self, means: dict[str, Array], video: Latents, clip: Latents, at: Int[Array, ""]) -> dict[str, Array]:
        """The means with one more rollout, which left off at evaluation `at`."""
        share = (self.log_powers(video) - self.log_powers(clip)).mean(0)
        count = means["count"].at[at].add(1)
        rate = 1 / jnp.minimum(count[at], _MEMORY)
        return {"share": means["share"].at[at].add(rate * (share - means["share"][at])), "count": count}

    def gradient(self, means: dict[str, Array], video: Latents, at: Int[Array, ""]) -> Latents:
        """Gradient, for each number of the video, of half the weighted square of what the means are off by."""
        share = means["share"][at]
        off = share - jnp.minimum(share[:1], 0)
        later = video.shape[1] // self.span - 1
        numbers = self.span * video.shape[2] * video.shape[3] * jnp.array([1, later])

        def loss(video: Latents) -> Float[Array, ""]:
            return jnp.einsum("j,jkc,kc,bjkc->", numbers, off, self.weights, self.log_powers(video))

        return jax.grad(loss)(video).at[:, 0].set(0)

    def log_powers(self, video: Latents) -> Float[Array, "B 2 K C"]:
        return jnp.log(_powers(video @ self.axes, self.span, self.bands) + _FAINT * self.normal)


def _of_clips(
    statistics: Callable[[Latents, int, int], Float[Array, "N B S C"]],
    weights: Sequence[float],
    clip: Latents,
    span: int,
    count: int,
    by_size: float,
) -> Loss:
    """The loss of N statistics of each clip, of videos along the principal axes, as `clip` is."""
    faint = _FAINT * (clip**2).mean((0, 1, 2, 3))
    real = statistics(clip, span, count) + faint
    weight = jnp.asarray(weights)[:, None] * _shares(real.mean((1, 2)), by_size, 1)

    def loss(video: Latents) -> Float[Array, ""]:
        made = statistics(video, span, count) + faint
        first = jax.lax.stop_gradient(made[:, :, 0].mean(1) / real[:, :, 0].mean(1))
        share = made[:, :, 1:] / (real[:, :, 1:] * first[:, None, None])
        return 0.5 * jnp.einsum("nc,nbsc->", weight, jnp.log(share) ** 2)

    return loss


def _gradient(loss: Loss, video: Latents, axes: Float[Array, "C C"], span: int) -> Latents:
    """Of a loss of spans, which counts for each of their numbers; the picture has none, and what is not finite is 0."""
    gradient = jax.grad(lambda x: loss(x @ axes))(video) * span * video.shape[2] * video.shape[3]
    return jnp.where(jnp.isfinite(gradient), gradient, 0).at[:, 0].set(0)


def _principal_axes(clip: Latents) -> Float[Array, "C C"]:
    """In columns."""
    return jnp.linalg.eigh(jnp.einsum("blhwc,blhwd->cd", clip, clip) / clip[..., 0].size)[1]


def _shares(size: Array, by_size: float, axis: int | None = None) -> Array:
    """Weights whose mean is 1: alike, or by size, or between."""
    return 1 - by_size + by_size * size / size.mean(axis, keepdims=True)


def _spans(x: Float[Array, "B L *N"], span: int, count: int) -> Float[Array, "B S *N"]:
    """Means over each span; the picture takes no part."""
    return jnp.stack([x[:, max(i * span, 1) : (i + 1) * span].mean(1) for i in range(count)], axis=1)


def _moments(video: Latents, span: int, count: int) -> Float[Array, "3 B S C"]:
    """Of each channel in each span the mean square: as it is, without the latent's mean, and of the steps to the next
    cell across and down."""
    across, down = (jnp.diff(video, axis=axis) ** 2 for axis in (3, 2))
    contrast, detail = video.var(axis=(2, 3)), across.mean(axis=(2, 3)) + down.mean(axis=(2, 3))
    return jnp.concatenate([_energy(video, span, count), *(_spans(x, span, count)[None] for x in (contrast, detail))])


def _energy(video: Latents, span: int, count: int) -> Float[Array, "1 B S C"]:
    """The mean square of each channel in each span."""
    return _spans((video**2).mean(axis=(2, 3)), span, count)[None]


def _spectrum(video: Latents, span: int, count: int) -> Float[Array, "S H W C"]:
    """Power of each coefficient of each channel's cosine transform, a mean over span and clips."""
    return _spans(_waves(video), span, count).mean(0)


def _powers(video: Latents, span: int, bands: int) -> Float[Array, "B 2 K C"]:
    """Of each clip's first span and of all later ones: mean power of bands of waves, and last the mean square."""
    spans = _spans(_waves(video), span, video.shape[1] // span)
    parts = jnp.stack([spans[:, 0], spans[:, 1:].mean(1)], axis=1)
    height, width = parts.shape[2:4]
    counted = jnp.ones((height, width)).at[0, 0].set(0)
    down, across = (jax.nn.one_hot(jnp.arange(n) * bands // n, bands) for n in (height, width))
    size = jnp.einsum("hw,hi,wj->ij", counted, down, across)
    banded = jnp.einsum("bjhwc,hw,hi,wk->bjikc", parts, counted, down, across) / size[..., None]
    return jnp.concatenate([banded.reshape(*parts.shape[:2], bands**2, -1), parts.mean((2, 3))[:, :, None]], axis=2)


def _waves(video: Latents) -> Latents:
    """Power of each coefficient of the cosine transform of each channel of each latent."""
    return jax.scipy.fft.dctn(video, axes=(2, 3), norm="ortho") ** 2
