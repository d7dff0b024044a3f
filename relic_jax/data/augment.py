"""Clips made from clips, exactly: run backwards, or seen in a mirror; actions are recomputed from the poses."""

import dataclasses

import numpy as np

from relic_jax.data.clip import Clip, from_poses

_FLIP = np.diag([-1.0, 1.0, 1.0])  # x points right

VARIANTS = ("as it is", "backwards", "mirrored", "mirrored and backwards")


def backwards(clip: Clip) -> Clip:
    """The clip from its last frame to its first: each step becomes dR^T and -dR dP (SPEC 8), not a change of sign."""
    return _made(clip, clip.video[::-1], clip.rotations[::-1], clip.positions[::-1])


def mirrored(clip: Clip) -> Clip:
    """The clip with left and right exchanged; captions name no sides."""
    rotations = _FLIP @ clip.rotations.astype(np.float64) @ _FLIP
    return _made(clip, clip.video[:, :, ::-1], rotations, clip.positions.astype(np.float64) @ _FLIP)


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
