"""The textures of the library: for each pattern, where a surface has its second colour.

All are two colours, large shapes and one crisp edge between them, softened over the width of a sample alone: little for
a VAE to spend bits on, and no aliasing. Each pattern is a signed distance, positive where the second colour is.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from relic_jax.data.house.library import PATTERNS

Samples = Float[Array, " N"]


def second_color(
    pattern: Int[Array, " N"],
    place: tuple[Samples, Samples],
    inside: tuple[Samples, Samples],
    soft: tuple[Samples, Samples],
) -> Samples:
    """How much of the second colour each sample has, in [0, 1].

    Args:
      pattern: index into `library.PATTERNS`.
      place: metres along the surface, across and up; a floor's from the room's middle.
      inside: the same in halves of the surface, [-1, 1] across and up.
      soft: the width of a sample in metres, and in halves of the surface.
    """
    metres = {**_of_room(*place), "bordered": _border(*place, *inside)}
    halves = {**_of_things(*inside), **_motifs(*inside)}
    amount = jnp.zeros_like(place[0])
    for shapes, width in ((metres, soft[0]), (halves, soft[1])):
        for name, distance in shapes.items():
            here = jnp.clip(0.5 + distance / width, 0.0, 1.0)
            amount = jnp.where(pattern == PATTERNS.index(name), here, amount)
    return amount


def _from(x: Samples, period: float, phase: Samples | float = 0.0) -> Samples:
    """Distance to the nearest multiple of `period`."""
    x = x / period + phase
    return jnp.abs(x - jnp.floor(x + 0.5)) * period


def _every(x: Samples, period: float) -> Samples:
    """Signed distance to stripes as wide as their gaps."""
    return _from(x, period) - period / 4


def _both(a: Samples, b: Samples) -> Samples:
    """Signed distance to where exactly one of two holds: checks of two stripes."""
    return jnp.sign(-a * b) * jnp.minimum(jnp.abs(a), jnp.abs(b))


def _of_room(u: Samples, v: Samples) -> dict[str, Samples]:
    """The patterns of walls, floors and ceilings; `plain` has none of its second colour."""
    row = jnp.floor(v / 0.5)
    shifted = _from(u, 1.0, 0.5 * (row - 2 * jnp.floor(row / 2)))
    triangle = 2.0 * _from(u, 1.6)
    return {
        "two-tone": 1.0 - v,
        "striped": _every(u, 1.0),
        "banded": _every(v - 0.25, 1.0),
        "checked": _both(_every(u, 1.6), _every(v - 0.4, 1.6)),
        "brick": 0.05 - jnp.minimum(_from(v, 0.5), shifted),
        "panelled": jnp.minimum(0.45 - jnp.abs(_from(u, 1.3) - 0.65) * 1.0, 0.85 - jnp.abs(v - 1.35)),
        "tiled": 0.06 - jnp.minimum(_from(u, 0.8), _from(v, 0.8)),
        "dotted": 0.24 - jnp.hypot(_from(u, 1.0), _from(v, 1.0, 0.5)),
        "wavy": _every(v + 0.2 * _wave(u / 1.8), 1.0),
        "zigzag": 0.8 * _every(v + 0.35 * triangle, 1.0),
        "diamond": _both(0.7 * _every(u + 0.7 * v, 1.7), 0.7 * _every(u - 0.7 * v, 1.7)),
        "planked": 0.06 - _from(u, 0.7),
        "ringed": _every(jnp.sqrt(u * u + v * v), 1.4),
    }


def _border(u: Samples, v: Samples, a: Samples, b: Samples) -> Samples:
    """A rug: 0.9 m from the edges of a floor inwards."""
    rest = [jnp.abs(x) / jnp.maximum(jnp.abs(y), 1e-6) - jnp.abs(x) for x, y in ((u, a), (v, b))]
    return jnp.minimum(*rest) - 0.9


def _of_things(a: Samples, b: Samples) -> dict[str, Samples]:
    """The faces of crates, doors, windows and chests, and the belt of round things."""
    x, y = jnp.abs(a), jnp.abs(b)
    frame = jnp.maximum(x, y) - 0.74
    return {
        "crate": jnp.maximum(frame, 0.7 * (0.2 - jnp.abs(a - b))),
        "door": jnp.minimum(0.22 - jnp.abs(x - 0.4), 0.3 - jnp.abs(y - 0.45)),
        "window": jnp.minimum(jnp.minimum(x, y) - 0.1, 0.76 - jnp.maximum(x, y)),
        "chest": jnp.minimum(0.1 - jnp.abs(x - 0.62), 2.0 - y),
        "belt": 0.22 - y,
    }


def _motifs(a: Samples, b: Samples) -> dict[str, Samples]:
    """What paintings show, each about 1.2 halves wide."""
    a, b = 1.25 * a, 1.25 * b  # a frame's width away from the edge
    x, y, r = jnp.abs(a), jnp.abs(b), jnp.sqrt(a * a + b * b)
    heart = jnp.hypot(x - 0.36, b - 0.25) - 0.42
    point = 0.7 * (x + jnp.abs(b - 0.17) - 0.86)
    return {
        "circle": 0.7 - r,
        "ring": 0.2 - jnp.abs(r - 0.6),
        "cross": jnp.maximum(jnp.minimum(0.22 - x, 0.8 - y), jnp.minimum(0.22 - y, 0.8 - x)),
        "square": 0.62 - jnp.maximum(x, y),
        "triangle": jnp.minimum(0.85 * (0.8 - b) - 1.7 * 0.85 * x, b + 0.65) * 0.6,
        "heart": -jnp.minimum(heart, jnp.maximum(point, b - 0.3)),
        "moon": jnp.minimum(0.75 - r, jnp.hypot(a - 0.35, b - 0.15) - 0.6),
        "star": 0.35 * (1.0 - jnp.minimum(x + 2.2 * y, 2.2 * x + y)),
    }


def _wave(cycles: Samples) -> Samples:
    """sin(2 pi x) by parabolas, which vectorises on every CPU."""
    x = cycles - jnp.floor(cycles) - 0.5
    return -16.0 * x * (0.5 - jnp.abs(x))
