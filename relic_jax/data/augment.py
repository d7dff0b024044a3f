"""Clips made from clips, exactly: run backwards, out and back, or seen in a mirror.

Actions are recomputed from the poses. All of it happens to pixels: a VAE that is causal in time does not give the
latents of a reversed video by reversing latents.
"""

import dataclasses

import numpy as np

from relic_jax.data.clip import Clip, from_poses

_FLIP = np.diag([-1.0, 1.0, 1.0])  # x points right

VARIANTS = ("as it is", "backwards", "mirrored", "mirrored and backwards")


def backwards(clip: Clip) -> Clip:
    """The clip from its last frame to its first: each step becomes dR^T and -dR dP (SPEC 8), not a change of sign."""
    return _made(clip, clip.video[::-1], clip.rotations[::-1], clip.positions[::-1])


def mirrored(clip: Clip) -> Clip:
    """The clip with left and right exchanged. Its caption is kept, so it must name no sides: those of houses do."""
    rotations = _FLIP @ clip.rotations.astype(np.float64) @ _FLIP
    return _made(clip, clip.video[:, :, ::-1], rotations, clip.positions.astype(np.float64) @ _FLIP)


def palindrome(clip: Clip, pivot: int) -> Clip:
    """The clip up to frame `pivot`, then the way it came, in as many frames as it had (SPEC 8): a revisit, exactly.

    The pivot frame comes once; what lies behind it is dropped.

    Args:
      pivot: index of the frame at which time turns, in the second half: at least (frames - 1) / 2.
    """
    if not (clip.frames - 1) / 2 <= pivot < clip.frames:
        raise ValueError(f"pivot {pivot} doesn't lie in the second half of {clip.frames} frames")
    index = pivot - np.abs(pivot - np.arange(clip.frames))
    made = _made(clip, clip.video[index], clip.rotations[index], clip.positions[index])
    # Its first frame is still the clip's, so the renderer can still show what other actions would have seen.
    return dataclasses.replace(
        made, seed=clip.seed, start_rotation=clip.start_rotation, start_position=clip.start_position
    )


def draw_pivot(frames: int, rng: np.random.Generator) -> int:
    """A pivot for `palindrome`, uniform in the second half; at least one frame goes back."""
    return int(rng.integers(frames // 2, frames - 1))


def variant(clip: Clip, name: str) -> Clip:
    """One of `VARIANTS`."""
    if name.startswith("mirrored"):
        clip = mirrored(clip)
    return backwards(clip) if name.endswith("backwards") else clip


def _made(clip: Clip, video: np.ndarray, rotations: np.ndarray, positions: np.ndarray) -> Clip:
    made = from_poses(
        np.ascontiguousarray(video), rotations.astype(np.float64), positions.astype(np.float64), caption=clip.caption
    )
    return dataclasses.replace(made, fps=clip.fps)  # no renderer's start pose: the scene can't be rendered from it
