"""How a house looks: surfaces, textures, soft light and skies at the points that rays meet."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from relic_jax.data.house import geometry as g
from relic_jax.data.house import textures
from relic_jax.data.house.cast import CEILING, FLOOR, Hit, Ray, Samples
from relic_jax.data.house.geometry import Geometry


class _Surface(typing.NamedTuple):
    """How each sample looks.

    Fields:
      place, half: texture coordinates and half the surface's sizes, metres.
      colors: the first and the second.
      built: part of the building, not a thing.
    """

    normal: Ray
    place: tuple[Samples, Samples]
    half: tuple[Samples, Samples]
    colors: Float[Array, "6 N"]
    pattern: Int[Array, " N"]
    glow: Samples
    built: Bool[Array, " N"]


def _pick(values: Float[Array | np.ndarray, "rooms columns"], room: Int[Array, " N"]) -> Float[Array, "columns N"]:
    """A row by room, by selection: a gather is scalar code on CPUs."""
    out = jnp.broadcast_to(values[0][:, None], (values.shape[1], room.shape[0]))
    for i in range(1, g.ROOMS):
        out = jnp.where(room == i, values[i][:, None], out)
    return out


def _rows(house: Geometry, hit: Hit) -> Float[Array, "columns N"]:
    """Each sample's row of the table. Behind a barrier, or XLA looks rows up again wherever a column is used."""
    which = jnp.maximum(hit.primitive, 0)
    columns = [jnp.asarray(house.table)[:, k].at[which].get(mode="promise_in_bounds") for k in range(g.COLUMNS)]
    return jax.lax.optimization_barrier(jnp.stack(columns))


def _surface(house: Geometry, hit: Hit, room: Float[Array, "4 N"]) -> _Surface:
    """The surface at each sample; `room` has its room's middle and half sizes."""
    row = _rows(house, hit)
    flat, wall = hit.primitive < 0, row[g.IS_WALL] > 0
    x, y, z = hit.point
    cx, cy, cz = row[g.CENTER]
    cos, sin = row[g.TURN]
    px, py, pz = cos * (x - cx) - sin * (z - cz), y - cy, sin * (x - cx) + cos * (z - cz)
    hx, hy, hz = row[g.HALF]
    normal, face_x, face_y = _normal(hit.primitive, (px, py, pz), (hx, hy, hz))
    normal = (cos * normal[0] + sin * normal[2], normal[1], cos * normal[2] - sin * normal[0])
    nx, ny, nz = (jnp.where(flat, to, n) for n, to in zip(normal, (0.0, -jnp.sign(y + 1.0), 0.0), strict=True))
    u, v = jnp.where(face_x, pz, px), jnp.where(face_y, pz, -py)
    hu, hv = jnp.where(face_x, hz, hx), jnp.where(face_y, hz, hy)
    u = jnp.where(wall, jnp.where(face_x, z - room[1], x - room[0]), u)
    v = jnp.where(wall, -y, v)
    u, v = jnp.where(flat, x - room[0], u), jnp.where(flat, z - room[1], v)
    hu, hv = jnp.where(flat, room[2], hu), jnp.where(flat, room[3], hv)
    level = jnp.where(hit.primitive == FLOOR, _pick(house.floors, hit.room), _pick(house.ceilings, hit.room))
    look = jnp.where(flat, level, row[g.FIRST.start : g.PATTERN + 1])
    glow = jnp.where(flat, 0.0, row[g.GLOW])
    return _Surface((nx, ny, nz), (u, v), (hu, hv), look[:6], look[6].astype(jnp.int32), glow, flat | wall)


def _normal(
    primitive: Int[Array, " N"], p: Ray, half: tuple[Samples, Samples, Samples]
) -> tuple[Ray, Bool[Array, " N"], Bool[Array, " N"]]:
    """Normals in the primitives' own axes, and whether a texture lies across x or across y."""
    _, sphere, cylinder, cone, end = g.START
    depths = [jnp.abs(a) - h for a, h in zip(p, half, strict=True)]
    is_box = primitive < sphere
    deepest = jnp.maximum(jnp.maximum(*depths[:2]), depths[2])
    on_x, on_y = depths[0] == deepest, depths[1] == deepest
    cap = (primitive >= cylinder) & (jnp.abs(p[1]) > 0.999 * half[1])
    slope = jnp.where(primitive >= cone, -((half[0] / (2 * half[1])) ** 2) * (p[1] + half[1]), 0.0)
    round_ = (p[0], jnp.where(primitive < cylinder, p[1], slope), p[2])
    length = jax.lax.rsqrt(jnp.maximum(round_[0] ** 2 + round_[1] ** 2 + round_[2] ** 2, 1e-9))
    flat = (on_x & is_box, (on_y & is_box) | cap, is_box & ~on_x & ~on_y)
    either = is_box | cap
    x, y, z = (
        jnp.where(either, jnp.where(f, jnp.sign(a), 0.0), r * length) for f, a, r in zip(flat, p, round_, strict=True)
    )
    return (x, y, z), on_x & is_box, flat[1]


def _light(house: Geometry, hit: Hit, surface: _Surface, room: Float[Array, "4 N"]) -> Samples:
    """A soft lamp under the ceiling's middle, a little by direction, darker in corners and around what stands."""
    x, y, z = hit.point
    to = (room[0] - x, -house.height + 0.2 - y, room[1] - z)
    far2 = to[0] ** 2 + to[1] ** 2 + to[2] ** 2
    nx, ny, nz = surface.normal
    facing = (to[0] * nx + to[1] * ny + to[2] * nz) * jax.lax.rsqrt(far2 + 0.3)
    light = 0.60 + 0.34 * jnp.maximum(facing, 0.0) / (1.0 + far2 / 60.0) + 0.08 * nz * nz + 0.04 * nx - 0.10 * ny
    ex, ez = room[2] - jnp.abs(x - room[0]), room[3] - jnp.abs(z - room[1])
    ey = jnp.minimum(-y, house.height + y)
    corner = jnp.maximum(jnp.minimum(ex, ez), jnp.minimum(jnp.maximum(ex, ez), ey))  # second smallest
    light = light * jnp.where(surface.built, 1.0 - 0.28 * jnp.square(jnp.clip(1.0 - corner / 0.6, 0.0, 1.0)), 1.0)
    shade = jnp.ones_like(x)
    for i in range(g.SHADOWS):
        sx, sz, radius = house.shadows[i]
        gap = jnp.sqrt(jnp.square(x - sx) + jnp.square(z - sz)) - radius
        shade = jnp.minimum(shade, 0.55 + 0.45 * jnp.clip(gap / 0.35, 0.0, 1.0))
    light = jnp.where(hit.primitive == FLOOR, light * shade, light)
    return jnp.where(surface.glow > 0, 1.0, light)


def _sky(sky: Float[Array, "11 N"], ray: Ray) -> tuple[Samples, ...]:
    """Red, green and blue of the sky in each direction: a gradient and a few round clouds."""
    length = jax.lax.rsqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    up = jnp.maximum(-ray[1] * length, 0.0)
    x, z = (1.6 * a * length / (up + 0.3) for a in (ray[0], ray[2]))
    cloud = jnp.clip(3.0 * (jnp.sin(2.1 * x + 0.7) * jnp.sin(2.6 * z + 0.4) - 0.35), 0.0, 1.0) * sky[9]
    rise = jnp.sqrt(up)
    return tuple((sky[k] + (sky[3 + k] - sky[k]) * rise) * (1 - cloud) + sky[6 + k] * cloud for k in range(3))


def colors(house: Geometry, hit: Hit, ray: Ray, sample: float) -> tuple[Samples, ...]:
    """Red, green and blue of each sample, `sample` wide at a depth of 1."""
    room = _pick(house.rooms, hit.room)
    surface = jax.lax.optimization_barrier(_surface(house, hit, room))
    nx, ny, nz = surface.normal
    length = jnp.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    slant = jnp.abs(nx * ray[0] + ny * ray[1] + nz * ray[2]) / length
    width = hit.depth * sample * jax.lax.rsqrt(jnp.maximum(slant, 0.04))
    (u, v), (hu, hv) = surface.place, surface.half
    amount = textures.second_color(surface.pattern, (u, v), (u / hu, v / hv), (width, width / jnp.minimum(hu, hv)))
    light, amount = jax.lax.optimization_barrier((_light(house, hit, surface, room), amount))
    sky = _pick(house.skies, hit.room)
    is_sky = (hit.primitive == CEILING) & (sky[10] > 0)
    first, second = surface.colors[:3], surface.colors[3:]
    own = [light * (first[k] + (second[k] - first[k]) * amount) for k in range(3)]
    return tuple(jnp.where(is_sky, s, c) for s, c in zip(_sky(sky, ray), own, strict=True))
