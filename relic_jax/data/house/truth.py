"""What is where in a seed's house: ids and depths for any path, the things in view, and what a first picture shows.

A clip stores neither: its seed and its poses are enough to cast the rays again.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from relic_jax.data.house import geometry, render, scene
from relic_jax.data.house.scene import House

Rotations = Float[np.ndarray, "T 3 3"]
Positions = Float[np.ndarray, "T 3"]


def truth(
    house: House | int, rotations: Rotations, positions: Positions, *, height: int = 64, width: int = 96
) -> tuple[Int[np.ndarray, "T height width"], Float[np.ndarray, "T height width"]]:
    """Ids (those of `geometry`) and depths, metres along the camera's axis, at the centre of each pixel.

    Args:
      house: or its seed.
      rotations, positions: absolute poses; `clip.Clip.absolute` gives a clip's.
    """
    built = house if isinstance(house, House) else scene.build(house)
    ids, depth = render.what_is_where(
        built.geometry, rotations.astype(np.float32), positions.astype(np.float32), height=height, width=width
    )
    return np.asarray(ids), np.asarray(depth)


@dataclasses.dataclass(frozen=True)
class Visible:
    """The things of a plan in some frames.

    Fields:
      share: of the frame's pixels that show each thing; 0 where it is out of view.
      row, column: the middle of those pixels, in shares of the frame's height and width; NaN out of view.
    """

    share: Float[np.ndarray, "T things"]
    row: Float[np.ndarray, "T things"]
    column: Float[np.ndarray, "T things"]


def visible(ids: Int[np.ndarray, "T height width"], things: int) -> Visible:
    """Which of a plan's things each frame shows, how large and where."""
    height, width = ids.shape[1:]
    is_thing = (ids[..., None] == geometry.THING + np.arange(things)).astype(np.float64)
    share = is_thing.mean((1, 2))
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    weight = np.where(share > 0, share, np.nan)
    row = np.einsum("thwn,h->tn", is_thing, rows) / (weight * height * width)
    column = np.einsum("thwn,w->tn", is_thing, columns) / (weight * height * width)
    return Visible(share, row, column)


def seen(
    depth: Float[np.ndarray, "T height width"], rotations: Rotations, positions: Positions, tolerance: float = 0.05
) -> Bool[np.ndarray, "T height width"]:
    """The pixels of each frame whose surface the first frame shows too: what its picture determines.

    Args:
      tolerance: by which share of its depth the first frame's surface may lie before a point and be the same.
    """
    height, width = depth.shape[1:]
    focal = 0.5 * width / np.tan(np.deg2rad(render.FIELD_OF_VIEW / 2))
    v, u = np.meshgrid(np.arange(height) + 0.5 - height / 2, np.arange(width) + 0.5 - width / 2, indexing="ij")
    rays = np.stack([u / focal, v / focal, np.ones_like(u)], -1)
    shown = np.zeros(depth.shape, bool)
    for t, (far, rotation, position) in enumerate(zip(depth, rotations, positions, strict=True)):
        world = (rays * np.minimum(far, 1e3)[..., None]) @ rotation + position
        x, y, z = np.moveaxis((world - positions[0]) @ rotations[0].T, -1, 0)
        front = np.maximum(z, 1e-3)
        column, row = focal * x / front + width / 2, focal * y / front + height / 2
        inside = (z > 0.05) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        first = depth[0][np.clip(row, 0, height - 1).astype(int), np.clip(column, 0, width - 1).astype(int)]
        shown[t] = inside & (z < first * (1 + tolerance) + 0.05)
    return shown
