"""Are the things of a room still there? Judged by where the renderer puts them, and by their colour."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from relic_jax.pixels import lab

_RING = 3  # pixels around a thing
_SAME_COLOR = 15.0  # CIE76; two named colours of houses are at least 30 apart


def kept(
    truth: UInt8[np.ndarray, "N t H W 3"],
    made: UInt8[np.ndarray, "N t H W 3"],
    things: list[Bool[np.ndarray, "n H W"]],
) -> Float[np.ndarray, " M"]:
    """Of each thing, 1 where the video has it in its place and colour.

    That is: the mean colour of its pixels is the truth's within `_SAME_COLOR`, and nearer to it than to what the truth
    has around the thing.

    Args:
      truth, made: frames of a camera at rest, of N scenes; their mean counts.
      things: of each scene where its things are in the truth.
    """
    found = []
    for true, video, masks in zip(truth, made, things, strict=True):
        true, video = (x.mean(0) / 255 for x in (true, video))
        for mask in masks:
            own, want, ring = lab(video[mask].mean(0)), lab(true[mask].mean(0)), around(mask)
            miss = np.linalg.norm(own - want)
            apart = np.linalg.norm(own - lab(true[ring].mean(0))) if ring.any() else np.inf
            found.append(float(miss < min(_SAME_COLOR, apart)))
    return np.array(found)


def around(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The pixels within a few of a region, outside it."""
    grown = mask.copy()
    for axis in (0, 1):
        padded = np.pad(grown, [(_RING, _RING) if a == axis else (0, 0) for a in (0, 1)])
        shifted = [np.take(padded, range(i, i + grown.shape[axis]), axis) for i in range(2 * _RING + 1)]
        grown = np.any(shifted, axis=0)
    return grown & ~mask
