"""Casting rays at a house: boxes, spheres, cylinders and cones in loops, then floors and ceilings."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from relic_jax.data.house import geometry as g
from relic_jax.data.house.geometry import Geometry

FIELD_OF_VIEW = 80.0  # horizontal, degrees

Samples = Float[Array, " N"]  # one number a ray
Ray = tuple[Samples, Samples, Samples]  # directions in the world, of length 1 along the camera's axis
Point = tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]
Best = tuple[Samples, Int[Array, " N"]]
CEILING, FLOOR = -2, -1  # instead of a primitive's number


class Hit(typing.NamedTuple):
    """What each ray meets first.

    Fields:
      depth: along the camera's axis, metres; large for the sky.
      primitive: row of the table, or -1 for a floor, -2 for a ceiling or the sky.
      room: the nearest room's number.
      point: in the world.
    """

    depth: Samples
    primitive: Int[Array, " N"]
    room: Int[Array, " N"]
    point: Ray


def _local(row: Float[Array, " columns"], position: Float[Array, "3"], ray: Ray) -> tuple[Point, Ray]:
    """Origin and directions in a primitive's own axes."""
    cos, sin = row[g.TURN][0], row[g.TURN][1]
    p = position - row[g.CENTER]
    origin = (cos * p[0] - sin * p[2], p[1], sin * p[0] + cos * p[2])
    return origin, (cos * ray[0] - sin * ray[2], ray[1], sin * ray[0] + cos * ray[2])


def _inverse(x: Samples) -> Samples:
    return 1.0 / jnp.where(jnp.abs(x) < 1e-9, 1e-9, x)


def _box(half: Float[Array, "3"], o: Point, d: Ray) -> Samples:
    """Depth at which rays enter a box, infinite where they don't."""
    near, far = -jnp.inf, jnp.inf
    for a in range(3):
        inverse = _inverse(d[a])
        reach = jnp.abs(inverse) * half[a]
        near, far = jnp.maximum(near, -o[a] * inverse - reach), jnp.minimum(far, -o[a] * inverse + reach)
    return jnp.where((near < far) & (near > 0), near, jnp.inf)


def _sphere(half: Float[Array, "3"], o: Point, d: Ray) -> Samples:
    a, b = d[0] ** 2 + d[1] ** 2 + d[2] ** 2, o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    inside = b * b - a * (o[0] ** 2 + o[1] ** 2 + o[2] ** 2 - half[0] ** 2)
    depth = (-b - jnp.sqrt(jnp.maximum(inside, 0.0))) / a
    return jnp.where((inside > 0) & (depth > 0), depth, jnp.inf)


def _disk(radius: Float[Array, ""], at: Samples | Float[Array, ""], o: Point, d: Ray) -> Samples:
    """Depth of a horizontal disk at a height."""
    depth = (at - o[1]) * _inverse(d[1])
    hit = (depth > 0) & ((o[0] + depth * d[0]) ** 2 + (o[2] + depth * d[2]) ** 2 < radius**2)
    return jnp.where(hit, depth, jnp.inf)


def _cylinder(half: Float[Array, "3"], o: Point, d: Ray) -> Samples:
    a, b = d[0] ** 2 + d[2] ** 2, o[0] * d[0] + o[2] * d[2]
    inside = b * b - a * (o[0] ** 2 + o[2] ** 2 - half[0] ** 2)
    depth = (-b - jnp.sqrt(jnp.maximum(inside, 0.0))) / jnp.maximum(a, 1e-9)
    side = (inside > 0) & (depth > 0) & (jnp.abs(o[1] + depth * d[1]) < half[1])
    return jnp.minimum(jnp.where(side, depth, jnp.inf), _disk(half[0], -jnp.sign(d[1]) * half[1], o, d))


def _cone(half: Float[Array, "3"], o: Point, d: Ray) -> Samples:
    k = (half[0] / (2 * half[1])) ** 2
    below = o[1] + half[1]  # the point
    a, b = d[0] ** 2 + d[2] ** 2 - k * d[1] ** 2, o[0] * d[0] + o[2] * d[2] - k * below * d[1]
    inside = b * b - a * (o[0] ** 2 + o[2] ** 2 - k * below**2)
    root, inverse = jnp.sqrt(jnp.maximum(inside, 0.0)), _inverse(a)
    best = _disk(half[0], half[1], o, d)
    for depth in ((-b - root) * inverse, (-b + root) * inverse):
        hit = (inside > 0) & (depth > 0) & (jnp.abs(o[1] + depth * d[1]) < half[1])
        best = jnp.minimum(best, jnp.where(hit, depth, jnp.inf))
    return best


_MEET = (_box, _sphere, _cylinder, _cone)  # in the order of `shapes.SHAPES`


def _may_see(
    house: Geometry, rotation: Float[Array, "3 3"], position: Float[Array, "3"], aspect: float
) -> Bool[Array, " primitives"]:
    """Which primitives' bounding spheres reach into the view: about a third, so casting costs a third."""
    center = (house.table[:, g.CENTER] - position) @ rotation.T
    radius = jnp.linalg.norm(house.table[:, g.HALF], axis=1)
    tangents = np.tan(np.deg2rad(FIELD_OF_VIEW / 2)) * np.array([1.0, aspect])
    beside = (jnp.abs(center[:, :2]) - tangents * center[:, 2:]) / np.sqrt(1 + tangents**2)
    return (beside < radius[:, None]).all(1) & (center[:, 2] > -radius)


def _nearest(
    house: Geometry, rotation: Float[Array, "3 3"], position: Float[Array, "3"], ray: Ray, aspect: float
) -> Best:
    """Depth of the first primitive along each ray and its row (-1: none)."""
    seen = _may_see(house, rotation, position, aspect)
    best: Best = (jnp.full_like(ray[0], jnp.inf), jnp.full(ray[0].shape, FLOOR, jnp.int32))
    for number, meet in enumerate(_MEET):
        start, stop = g.START[number], g.START[number + 1]
        wanted = seen[start:stop] & (jnp.arange(stop - start) < house.counts[number])
        rows = start + jnp.nonzero(wanted, size=stop - start, fill_value=0)[0].astype(jnp.int32)

        def visit(i: Int[Array, ""], best: Best, rows: Int[Array, " rows"] = rows, meet=meet) -> Best:
            row = house.table[rows[i]]
            depth = meet(row[g.HALF], *_local(row, position, ray))
            closer = depth < best[0]
            return jnp.where(closer, depth, best[0]), jnp.where(closer, rows[i], best[1])

        # A loop, not unrolled code: several times as fast on CPUs, and only what may be seen costs anything.
        best = jax.lax.fori_loop(0, wanted.sum(), visit, best)
    return best


def _room_at(house: Geometry, x: Samples, z: Samples) -> Int[Array, " N"]:
    """The room whose rectangle is nearest."""
    best, which = jnp.full_like(x, jnp.inf), jnp.zeros(x.shape, jnp.int32)
    for i in range(g.ROOMS):
        mx, mz, hx, hz = house.rooms[i]
        outside = jnp.maximum(jnp.abs(x - mx) - hx, jnp.abs(z - mz) - hz)
        which = jnp.where(outside < best, i, which)
        best = jnp.minimum(outside, best)
    return which


def trace(
    house: Geometry, rotation: Float[Array, "3 3"], position: Float[Array, "3"], ray: Ray, aspect: float = 1.0
) -> Hit:
    """What each ray from `position` meets first; rays within the view of `rotation`, a picture `aspect` as high."""
    depth, primitive = _nearest(house, rotation, position, ray, aspect)
    down = ray[1] > -1e-9  # as `_inverse` has it: a level ray meets the floor, far away
    level = (jnp.where(down, 0.0, -house.height) - position[1]) * _inverse(ray[1])
    flat = level < depth
    depth = jnp.where(flat, level, depth)
    primitive = jnp.where(flat, jnp.where(down, FLOOR, CEILING), primitive)
    x, y, z = (position[a] + depth * ray[a] for a in range(3))
    return Hit(depth, primitive, _room_at(house, x, z), (x, y, z))


def ids_of(house: Geometry, hit: Hit) -> Int[Array, " N"]:
    """What each ray meets, as the ids of `geometry`."""
    flat = jnp.where(hit.primitive == FLOOR, g.FLOOR, g.CEILING) + 3 * hit.room
    flat = jnp.where((hit.primitive == CEILING) & (house.skies[hit.room, -1] > 0), g.SKY, flat)
    return jnp.where(hit.primitive < 0, flat, house.ids[jnp.maximum(hit.primitive, 0)])
