"""Distribution matching (SPEC 6; DMD, arXiv 2311.18828, in the form of Self-Forcing, 2506.08009).

Two bidirectional models see the student's video: the teacher (real score), which knows how real video is distributed,
and the critic (fake score), which is trained on the student's own and so knows how that is distributed. Noise the video
and let both say what it was: where they differ, the student's video is likelier than it should be, and the difference
says which way to move it.

A student streams on for as long as its users do, a teacher knows clips of one length. With `sub_clip` they see a
sub-clip of a longer rollout, drawn at random, as Self-Forcing++ (arXiv 2510.02283) does: the last frame before it is
its picture, encoded anew because the latent of a picture is unlike one of four frames, and the camera starts there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses as camera_poses
from relic_jax.config import DiTConfig, RelicConfig, VAEConfig, above, require
from relic_jax.diffusion import flow
from relic_jax.diffusion.velocity import Level, VelocityField, bidirectional, guided
from relic_jax.models import vae
from relic_jax.models.conditioning import Conditions
from relic_jax.models.module import Params
from relic_jax.rng import streams
from relic_jax.train import clips as train_clips
from relic_jax.train import terms
from relic_jax.train.replay import Rollout

LOWEST, HIGHEST = 0.02, 0.98  # noise levels at which videos are seen
CONTEXT = 4  # latents decoded for the sake of the last frame (55 dB from all of them); also the grid of beginnings

Latents = Float[Array, "B L H W C"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The teacher, and how it sees the student's video.

    Fields:
      teacher: workdir or safetensors file of the teacher of this length.
      teacher_dit: its size, the critic's too; None: the student's.
      guidance: of the teacher, on the text; the critic has none.
      shift: of the noise levels.
      sub_clip: latents of what teacher and critic see of a longer rollout; None: all of it.
    """

    teacher: str
    teacher_dit: DiTConfig | None = None
    guidance: float = 4.0
    shift: float = flow.SHIFT
    sub_clip: int | None = None

    def __post_init__(self) -> None:
        above(self, "config.terms.score", 0, "guidance", "shift")
        require(
            self.sub_clip is None or self.sub_clip >= 2,
            f"config.terms.score.sub_clip={self.sub_clip}: expected 2 latents or more, or None for all of a rollout",
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """What teacher and critic see of rollouts: all of each, or a sub-clip. Leading axes as in `Rollout`."""

    latents: Float[Array, "*S B l H W C"]
    conditions: Conditions
    start: Int[Array, "*S"]  # the first latent's number


class Term(terms.Term):
    """See `terms.Term`."""

    cfg: Config

    @property
    def teacher_model(self) -> RelicConfig:
        """The student's model with the teacher's transformer, which is the critic's size too."""
        return dataclasses.replace(self.model, dit=self.cfg.teacher_dit or self.model.dit)

    def view(self, rollout: Rollout, clips: Mapping[str, Array], decoder: Params, key: PRNGKeyArray) -> View:
        """What teacher and critic see of a rollout; `decoder` are the VAE's weights, for the picture of a sub-clip."""
        latents, cfg = self.cfg.sub_clip, self.model
        if latents is None:
            return View(rollout.latents, rollout.conditions, jnp.int32(0))
        start = draw_start(key, rollout.latents.shape[1], latents)
        given = train_clips.conditions(sub_clip(clips, start, latents, cfg.vae), cfg)
        told = rollout.conditions
        given = dataclasses.replace(given, text=told.text, pose_weight=told.pose_weight)
        return View(sub_video(decoder, cfg.vae, rollout.latents, start, latents), given, start)

    def critic_loss(self, critic: Params, seen: View, key: PRNGKeyArray, *, checkpoint: bool) -> Float[Array, ""]:
        """The critic learns how the student's video is distributed."""
        fake = bidirectional(critic, self.teacher_model, checkpoint=checkpoint)
        return critic_loss(fake, seen.latents, seen.conditions, key, self.cfg.shift)

    def gradient(
        self, sample: terms.Sample, models: Mapping[str, Params], key: PRNGKeyArray
    ) -> tuple[Latents, dict[str, Float[Array, ""]]]:
        real_score = guided(bidirectional(models["teacher"], self.teacher_model), self.cfg.guidance)
        fake_score = bidirectional(models["critic"], self.teacher_model)
        seen = sample.seen
        score = score_gradient(real_score, fake_score, seen.latents, seen.conditions, key, self.cfg.shift)
        if self.cfg.sub_clip is not None:
            score = over_whole_video(score, seen.start, sample.rollout.latents.shape[1])
        return score, {"dmd_gradient": jnp.abs(score).sum() / score[:, 1:].size}


def score_gradient(
    real_score: VelocityField,
    fake_score: VelocityField,
    video: Latents,
    given: Conditions,
    key: PRNGKeyArray,
    shift: float = flow.SHIFT,
) -> Latents:
    """DMD's gradient with respect to each latent of the student's video: (x0_fake - x0_real) / mean|x0 - x0_real|.

    The scale is a clip's own: it makes all noise levels count alike. The picture takes no part, and what is
    not finite is 0.

    Args:
      real_score: the frozen teacher, guided. fake_score: the critic, not guided.
      video: clean latents of whole clips, the first of them the picture.
    """
    level, noise = _noise(key, video, shift)
    noisy = flow.add_noise(video, noise, level)
    real, fake = (flow.predict_clean(noisy, score(noisy, level, given), level) for score in (real_score, fake_score))
    scale = jnp.abs(video - real)[:, 1:].mean(axis=(1, 2, 3, 4), keepdims=True)
    gradient = (fake - real) / scale
    return jnp.where(jnp.isfinite(gradient), gradient, 0).at[:, 0].set(0)


def critic_loss(
    fake_score: VelocityField, video: Latents, given: Conditions, key: PRNGKeyArray, shift: float = flow.SHIFT
) -> Float[Array, ""]:
    """Flow matching on the student's video; the picture takes no part."""
    level, noise = _noise(key, video, shift)
    predicted = fake_score(flow.add_noise(video, noise, level), level, given)
    return ((predicted - flow.velocity(video, noise)) ** 2)[:, 1:].mean()


def _noise(key: PRNGKeyArray, video: Latents, shift: float) -> tuple[Level, Latents]:
    """One level for all latents of a clip but the picture, which is clean; and noise."""
    rng = streams(key)
    level = flow.shift(jax.random.uniform(rng["level"], (video.shape[0], 1)), shift)
    level = jnp.broadcast_to(jnp.clip(level, LOWEST, HIGHEST), video.shape[:2])
    return level.at[:, 0].set(0), jax.random.normal(rng["noise"], video.shape)


def draw_start(key: PRNGKeyArray, length: int, latents: int) -> Int[Array, ""]:
    """Where a sub-clip begins: the number of its first latent, a multiple of CONTEXT."""
    return jax.random.randint(key, (), 0, (length - latents) // CONTEXT + 1) * CONTEXT


def sub_clip(batch: Mapping[str, Array], start: Int[Array, ""], latents: int, cfg: VAEConfig) -> dict[str, Array]:
    """The sub-clip's actions and poses, as if its clips had begun there; `unit` and `text` are the clips'.

    Args:
      batch: actions [B, T, 13], rotations [B, T, 3, 3], positions [B, T, 3] and more, T frames of whole clips.
    """

    def part(x: Float[Array, "B T ..."]) -> Float[Array, "B t ..."]:
        return jax.lax.dynamic_slice_in_dim(x, start * cfg.temporal_stride, cfg.frames_of(latents), axis=1)

    actions = part(batch["actions"]).at[:, 0].set(camera_actions.static_actions(1)[0])
    poses = camera_poses.relative(part(batch["rotations"]), part(batch["positions"]))
    rotations, positions = map(jnp.asarray, poses)
    return {**batch, "actions": actions, "rotations": rotations, "positions": positions}


def sub_video(
    decoder: Params, cfg: VAEConfig, whole: Latents, start: Int[Array, ""], latents: int
) -> Float[Array, "B l H W C"]:
    """The sub-clip of a video of latents, its first one the picture that the video shows there.

    Args:
      decoder: the VAE's weights.
    """
    before = jax.lax.dynamic_slice_in_dim(whole, jnp.maximum(start - CONTEXT, 0), CONTEXT + 1, axis=1)
    frame = vae.decode_video(decoder, cfg, before)[:, -1:]
    picture = jnp.where(start == 0, whole[:, :1], vae.encode_video(decoder, cfg, frame))
    return jax.lax.dynamic_slice_in_dim(whole, start, latents, axis=1).at[:, :1].set(picture)


def over_whole_video(gradient: Float[Array, "B l H W C"], start: Int[Array, ""], length: int) -> Latents:
    """A sub-clip's gradient as one of the whole video, of which it is a sample: the mean keeps its size."""
    batch, latents, *shape = gradient.shape
    scale = (length - 1) / (latents - 1)  # pictures take no part
    return jax.lax.dynamic_update_slice_in_dim(
        jnp.zeros((batch, length, *shape), gradient.dtype), gradient * scale, start, axis=1
    )
