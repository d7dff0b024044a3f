"""The finite library that houses are made of: 16 colours, 30 materials, 12 kinds of things, 8 motifs, by name.

A house holds nothing that is not here, so a small model can learn all there is, and a held-out house is a new
arrangement of known parts. Colours in sRGB, [0, 1]; two of them are at least `MIN_DISTANCE` apart.
"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Float

from relic_jax.pixels import lab

Vector = Float[np.ndarray, "3"]

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.82, 0.10, 0.12),
    "orange": (0.96, 0.50, 0.06),
    "yellow": (0.98, 0.86, 0.16),
    "lime": (0.58, 0.86, 0.18),
    "green": (0.10, 0.50, 0.18),
    "teal": (0.02, 0.58, 0.56),
    "cyan": (0.42, 0.86, 0.94),
    "blue": (0.12, 0.34, 0.88),
    "navy": (0.07, 0.09, 0.36),
    "purple": (0.50, 0.16, 0.66),
    "pink": (0.98, 0.55, 0.74),
    "brown": (0.45, 0.26, 0.12),
    "cream": (0.96, 0.87, 0.66),
    "white": (0.96, 0.96, 0.96),
    "grey": (0.52, 0.53, 0.55),
    "black": (0.09, 0.09, 0.10),
}
MIN_DISTANCE = 30.0  # CIE Lab (CIE76) between any two: cream and white; 2.3 is a difference one just notices

# Patterns of the textures, in the order in which `textures` knows them.
PATTERNS = (
    "plain", "two-tone", "striped", "banded", "checked", "brick", "panelled", "tiled", "dotted", "wavy", "zigzag",
    "diamond", "planked", "ringed", "bordered",
    "crate", "door", "window", "chest", "belt",
    "circle", "ring", "cross", "square", "triangle", "heart", "moon", "star",
)  # fmt: skip
WALLS = PATTERNS[:12]
FLOORS = (
    "plain", "striped", "checked", "brick", "tiled", "dotted", "wavy", "zigzag", "diamond", "planked", "ringed",
    "bordered",
)  # fmt: skip
CEILINGS = ("plain", "striped", "panelled")
SKIES = {  # name: horizon, zenith, what floats in it, how much of it
    "blue": ((0.78, 0.90, 0.98), (0.25, 0.52, 0.90), (0.98, 0.98, 0.99), 1.0),
    "sunset": ((0.99, 0.66, 0.36), (0.46, 0.28, 0.58), (0.99, 0.80, 0.62), 0.0),
    "night": ((0.16, 0.18, 0.40), (0.04, 0.05, 0.16), (0.95, 0.94, 0.82), 0.0),
}
CEILING_COLORS = ("white", "cream", "grey", "cyan", "pink")
MOTIFS = PATTERNS[-8:]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of thing: where it belongs and how much room it takes, metres.

    Fields:
      place: "floor" or "wall".
      radius: of the floor it covers; of a thing on a wall, half its width.
      height: from its foot to its top.
      foot: height of its lowest point above the floor.
    """

    place: str
    radius: float
    height: float
    foot: float = 0.0


KINDS: dict[str, Kind] = {
    "crate": Kind("floor", 0.58, 0.8),
    "pillar": Kind("floor", 0.36, 9.0),  # up to the ceiling
    "ball": Kind("floor", 0.45, 0.9),
    "cone": Kind("floor", 0.50, 1.25),
    "arch": Kind("floor", 0.95, 2.2),
    "lamp": Kind("floor", 0.36, 1.7),
    "plant": Kind("floor", 0.50, 1.5),
    "table": Kind("floor", 0.65, 0.8),
    "chest": Kind("floor", 0.65, 0.65),
    "painting": Kind("wall", 0.65, 1.0, 1.1),
    "door": Kind("wall", 0.50, 2.05),
    "window": Kind("wall", 0.75, 1.2, 1.0),
}


def distance(one: str, other: str) -> float:
    """CIE76 colour difference of two named colours."""
    return float(np.linalg.norm(lab(np.array(COLORS[one])) - lab(np.array(COLORS[other]))))


def smallest_distance() -> float:
    """That of the two named colours which are nearest to each other."""
    return min(distance(a, b) for a, b in itertools.combinations(COLORS, 2))


def mate(color: str) -> Vector:
    """The second colour of a thing of this one: a dark shade of a light colour, a light tint of a dark one.

    It follows from the first, so that a pattern and one colour are all there is to learn of a surface.
    """
    c = np.array(COLORS[color])
    return 0.62 * c if lab(c)[0] > 55 else 0.55 * c + 0.45


def soft_mate(color: str) -> Vector:
    """The second colour of a wall, floor or ceiling: nearer, as these fill the picture and edges cost a VAE most."""
    return 0.4 * np.array(COLORS[color]) + 0.6 * mate(color)
