"""The things of the library as boxes, spheres, cylinders and cones: silhouettes that differ at a few pixels' width."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from relic_jax.data.house.library import COLORS, KINDS, PATTERNS, mate

SHAPES = ("box", "sphere", "cylinder", "cone")  # cylinders and cones stand upright
Vector = Float[np.ndarray, "3"]

_DARK = np.array([0.16, 0.13, 0.11])
_WOOD = np.array([0.36, 0.22, 0.12])
_PANE = np.array([0.78, 0.90, 0.98])
_BRASS = np.array([0.95, 0.80, 0.30])


@dataclasses.dataclass(frozen=True)
class Part:
    """A primitive in its thing's axes: x across, y down (the floor is 0), z to the front; metres.

    Fields:
      half: half sizes; a cone's point is up.
      colors: first and second colour.
      glow: 1 for what shines, whose colour no light changes.
    """

    shape: str
    middle: tuple[float, float, float]
    half: tuple[float, float, float]
    colors: tuple[Vector, Vector]
    pattern: str = "plain"
    glow: float = 0.0

    @property
    def pattern_index(self) -> int:
        return PATTERNS.index(self.pattern)


def parts(kind: str, color: str, motif: str, height: float) -> list[Part]:
    """What a thing is made of.

    Args:
      motif: of a painting, else "".
      height: the room's, metres.
    """
    colors = np.array(COLORS[color]), mate(color)
    if kind == "painting":
        return _painting(colors, motif)
    if kind == "pillar":
        return _pillar(colors, height)
    return _MADE[kind](colors)


Colors = tuple[Vector, Vector]


def _plain(color: Vector) -> Colors:
    return color, color


def _round(radius: float, half_height: float) -> tuple[float, float, float]:
    return radius, half_height, radius


def _crate(colors: Colors) -> list[Part]:
    return [Part("box", (0.0, -0.4, 0.0), (0.4, 0.4, 0.4), colors, "crate")]


def _pillar(colors: Colors, height: float) -> list[Part]:
    ends = [Part("box", (0.0, y, 0.0), (0.34, 0.13, 0.34), (colors[1], colors[1])) for y in (-0.13, -height + 0.13)]
    return [Part("cylinder", (0.0, -height / 2, 0.0), _round(0.24, height / 2), colors), *ends]


def _ball(colors: Colors) -> list[Part]:
    return [Part("sphere", (0.0, -0.45, 0.0), _round(0.45, 0.45), colors, "belt")]


def _cone(colors: Colors) -> list[Part]:
    foot = Part("box", (0.0, -0.04, 0.0), (0.46, 0.04, 0.46), _plain(_DARK))
    return [Part("cone", (0.0, -0.665, 0.0), _round(0.4, 0.585), (colors[0], np.full(3, 0.96)), "belt"), foot]


def _arch(colors: Colors) -> list[Part]:
    legs = [Part("box", (x, -0.95, 0.0), (0.17, 0.95, 0.19), colors) for x in (-0.75, 0.75)]
    return [*legs, Part("box", (0.0, -2.04, 0.0), (0.92, 0.16, 0.19), colors)]


def _lamp(colors: Colors) -> list[Part]:
    pole = Part("cylinder", (0.0, -0.65, 0.0), _round(0.04, 0.65), _plain(_DARK))
    foot = Part("cylinder", (0.0, -0.04, 0.0), _round(0.24, 0.04), _plain(_DARK))
    return [Part("cone", (0.0, -1.42, 0.0), _round(0.36, 0.28), colors, glow=1.0), pole, foot]


def _plant(colors: Colors) -> list[Part]:
    pot = Part("cylinder", (0.0, -0.2, 0.0), _round(0.26, 0.2), _plain(_WOOD))
    leaves = [((-0.2, -0.65, 0.05), 0.29), ((0.2, -0.75, -0.05), 0.3), ((0.0, -1.14, 0.0), 0.34)]
    return [pot, *(Part("sphere", middle, _round(r, r), colors) for middle, r in leaves)]


def _table(colors: Colors) -> list[Part]:
    top = Part("cylinder", (0.0, -0.74, 0.0), _round(0.65, 0.06), colors)
    leg = Part("cylinder", (0.0, -0.36, 0.0), _round(0.09, 0.36), (colors[1], colors[1]))
    return [top, leg, Part("cylinder", (0.0, -0.04, 0.0), _round(0.34, 0.04), (colors[1], colors[1]))]


def _chest(colors: Colors) -> list[Part]:
    body = Part("box", (0.0, -0.22, 0.0), (0.6, 0.22, 0.34), (colors[0], _BRASS), "chest")
    lid = Part("box", (0.0, -0.53, 0.0), (0.64, 0.09, 0.38), (colors[1], _BRASS), "chest")
    return [body, lid, Part("box", (0.0, -0.42, 0.36), (0.09, 0.1, 0.04), _plain(_BRASS))]


def _door(colors: Colors) -> list[Part]:
    knob = Part("box", (0.38, -1.0, 0.07), (0.045, 0.06, 0.04), _plain(_BRASS))
    return [Part("box", (0.0, -1.025, 0.0), (0.5, 1.025, 0.06), colors, "door"), knob]


def _window(colors: Colors) -> list[Part]:
    foot = KINDS["window"].foot
    sill = Part("box", (0.0, -foot, 0.05), (0.8, 0.06, 0.12), _plain(colors[0]))
    return [Part("box", (0.0, -foot - 0.6, 0.0), (0.7, 0.6, 0.05), (colors[0], _PANE), "window"), sill]


def _painting(colors: Colors, motif: str) -> list[Part]:
    foot = KINDS["painting"].foot
    frame = Part("box", (0.0, -foot - 0.5, 0.0), (0.62, 0.5, 0.04), _plain(_WOOD))
    return [frame, Part("box", (0.0, -foot - 0.5, 0.0), (0.55, 0.43, 0.05), colors, motif)]


_MADE: dict[str, Callable[[Colors], list[Part]]] = {
    "crate": _crate, "ball": _ball, "cone": _cone, "arch": _arch, "lamp": _lamp, "plant": _plant, "table": _table,
    "chest": _chest, "door": _door, "window": _window,
}  # fmt: skip
