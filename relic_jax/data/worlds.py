"""The rendered worlds that clips are made of, by name: each builds a scene of a seed, films it and says what there is.

`room` is what the shipped model was trained on; `house` is the world with a finite library (`data.house`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from relic_jax.data import captions, world
from relic_jax.data.house import captions as house_captions
from relic_jax.data.house import render as house_render
from relic_jax.data.house import scene as house_scene

Rotation = Float[np.ndarray, "3 3"]
Vector = Float[np.ndarray, "3"]
DEFAULT = "room"


class World(NamedTuple):
    """What a clip needs of a world.

    Fields:
      build: the scene of a seed, a `walks.Scene`.
      render: frames [T, height, width, 3] of a scene at absolute poses, as `world.render` takes them.
      caption: of a scene, its seed, and the absolute pose of the clip's first frame.
    """

    build: Callable[[int], Any]
    render: Callable[..., UInt8[np.ndarray, "T height width 3"]]
    caption: Callable[[Any, int, Rotation, Vector], str]


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


WORLDS: Mapping[str, World] = {
    "room": World(lambda seed: world.build_scene(seed)[0], _render_room, _caption_room),
    "house": World(house_scene.build, _render_house, house_captions.caption),
}
