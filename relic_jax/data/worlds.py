"""The rendered worlds that clips are made of, by name: each builds a scene of a seed, films it and says what there is.

`room` is what the shipped model was trained on; `house` is the world with a finite library (`data.house`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from relic_jax.data import captions, world
from relic_jax.data.house import captions as house_captions
from relic_jax.data.house import geometry as house_geometry
from relic_jax.data.house import render as house_render
from relic_jax.data.house import scene as house_scene
from relic_jax.data.house import truth as house_truth

Rotation = Float[np.ndarray, "3 3"]
Vector = Float[np.ndarray, "3"]
DEFAULT = "room"


class World(NamedTuple):
    """What a clip needs of a world.

    Fields:
      build: the scene of a seed, a `walks.Scene`.
      render: frames [T, height, width, 3] of a scene at absolute poses, as `world.render` takes them.
      caption: of a scene, its seed, and the absolute pose of the clip's first frame.
      seen: of a scene and absolute poses, the pixels [T, height, width] of each frame that the first one shows too;
        None where the renderer knows no depths.
      things: of a scene and one absolute pose, where each thing is that is large enough to be told, [n, height, width].
    """

    build: Callable[[int], Any]
    render: Callable[..., UInt8[np.ndarray, "T height width 3"]]
    caption: Callable[[Any, int, Rotation, Vector], str]
    seen: Callable[..., Bool[np.ndarray, "T height width"]] | None = None
    things: Callable[..., Bool[np.ndarray, "n height width"]] | None = None


def _render_room(scene: world.Scene, rotations: Any, positions: Any, **size: int) -> UInt8[np.ndarray, "T h w 3"]:
    return np.asarray(world.render(scene, rotations.astype(np.float32), positions.astype(np.float32), **size))


def _caption_room(scene: world.Scene, seed: int, rotation: Rotation, position: Vector) -> str:
    del scene, rotation, position
    return captions.caption(world.build_scene(seed)[1], seed)


def _render_house(
    house: house_scene.House, rotations: Any, positions: Any, **size: int
) -> UInt8[np.ndarray, "T h w 3"]:
    poses = rotations.astype(np.float32), positions.astype(np.float32)
    return np.asarray(house_render.render(house.geometry, *poses, **size))


def _seen_house(house: house_scene.House, rotations: Any, positions: Any, **size: int) -> Bool[np.ndarray, "T h w"]:
    _, depth = house_truth.truth(house, rotations, positions, **size)
    return house_truth.seen(depth, rotations, positions)


def _things_house(house: house_scene.House, rotation: Any, position: Any, **size: int) -> Bool[np.ndarray, "n h w"]:
    ids, _ = house_truth.truth(house, rotation[None], position[None], **size)
    each = [ids[0] == house_geometry.THING + i for i in range(len(house.plan.things))]
    masks = [mask for mask in each if mask.mean() >= house_captions.SMALLEST]
    return np.stack(masks) if masks else np.zeros((0, *ids.shape[1:]), bool)


WORLDS: Mapping[str, World] = {
    "room": World(lambda seed: world.build_scene(seed)[0], _render_room, _caption_room),
    "house": World(house_scene.build, _render_house, house_captions.caption, _seen_house, _things_house),
}
