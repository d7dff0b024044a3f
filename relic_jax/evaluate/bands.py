"""How much of a picture's contrast lies in coarse, middle and fine detail: what is smeared lacks the last.

Sharpness alone can be had by noise or by streaks; a band of the spectrum that is too strong shows it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from relic_jax.evaluate.drift import LUMA

Frames = UInt8[np.ndarray, "_ H W 3"]  # as many as there are

NAMES = ("low", "middle", "high")
_EDGES = (1 / 64, 1 / 16, 1 / 6, 1 / 2)  # cycles a pixel; at 64 rows the lowest is one period a picture
_CHUNK = 64  # frames at once


def power(frames: Frames) -> Float[np.ndarray, "3"]:
    """Spectral power of the luma in each band of `NAMES`, mean over the frames.

    Frames are windowed (Hann), so that their edges count for nothing; frequencies are radial.
    """
    height, width = frames.shape[1:3]
    window = np.outer(np.hanning(height), np.hanning(width))
    masks = _masks(height, width)
    total = np.zeros(len(NAMES))
    for start in range(0, len(frames), _CHUNK):
        luma = frames[start : start + _CHUNK] @ LUMA
        luma = (luma - luma.mean((1, 2), keepdims=True)) * window
        spectrum = np.abs(np.fft.fft2(luma)) ** 2
        total += np.array([spectrum[:, mask].sum() for mask in masks])
    return total / len(frames)


def _masks(height: int, width: int) -> list[Bool[np.ndarray, "H W"]]:
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    return [(low <= radius) & (radius < high) for low, high in zip(_EDGES[:-1], _EDGES[1:], strict=True)]


def shares(made: list[Frames], truth: list[Frames]) -> dict[str, float]:
    """The power of each band in some videos over that in others; 1 is as much."""
    ours, theirs = (np.mean([power(video) for video in videos], axis=0) for videos in (made, truth))
    return dict(zip(NAMES, (ours / theirs).tolist(), strict=True))
