"""The renderer of houses: one ray a sample against boxes, spheres, cylinders and cones, jitted and deterministic.

It gives frames, and what is at each pixel and how far away: the truth that evaluation asks for.
"""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from relic_jax.data.house import geometry as g
from relic_jax.data.house import textures
from relic_jax.data.house.geometry import Geometry

FIELD_OF_VIEW = 80.0  # horizontal, degrees
SUPERSAMPLE = 2  # rays per pixel side

Samples = Float[Array, " N"]  # one number a ray
Ray = tuple[Samples, Samples, Samples]  # directions in the world, of length 1 along the camera's axis
Best = tuple[Samples, Int[Array, " N"]]
_CEILING, _FLOOR = -2, -1  # instead of a primitive's number


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


def _local(row: Float[Array, " columns"], position: Float[Array, "3"], ray: Ray) -> tuple[Ray, Ray]:
    """Origin and directions in a primitive's own axes."""
    cos, sin = row[g.TURN][0], row[g.TURN][1]
    p = position - row[g.CENTER]
    origin = (cos * p[0] - sin * p[2], p[1], sin * p[0] + cos * p[2])
    return origin, (cos * ray[0] - sin * ray[2], ray[1], sin * ray[0] + cos * ray[2])


def _inverse(x: Samples) -> Samples:
    return 1.0 / jnp.where(jnp.abs(x) < 1e-9, 1e-9, x)


def _box(half: Float[Array, "3"], o: Ray, d: Ray) -> Samples:
    """Depth at which rays enter a box, infinite where they don't."""
    near, far = -jnp.inf, jnp.inf
    for a in range(3):
        inverse = _inverse(d[a])
        reach = jnp.abs(inverse) * half[a]
        near, far = jnp.maximum(near, -o[a] * inverse - reach), jnp.minimum(far, -o[a] * inverse + reach)
    return jnp.where((near < far) & (near > 0), near, jnp.inf)


def _sphere(half: Float[Array, "3"], o: Ray, d: Ray) -> Samples:
    a, b = d[0] ** 2 + d[1] ** 2 + d[2] ** 2, o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    inside = b * b - a * (o[0] ** 2 + o[1] ** 2 + o[2] ** 2 - half[0] ** 2)
    depth = (-b - jnp.sqrt(jnp.maximum(inside, 0.0))) / a
    return jnp.where((inside > 0) & (depth > 0), depth, jnp.inf)


def _disk(radius: Float[Array, ""], at: Samples | Float[Array, ""], o: Ray, d: Ray) -> Samples:
    """Depth of a horizontal disk at a height."""
    depth = (at - o[1]) * _inverse(d[1])
    hit = (depth > 0) & ((o[0] + depth * d[0]) ** 2 + (o[2] + depth * d[2]) ** 2 < radius**2)
    return jnp.where(hit, depth, jnp.inf)


def _cylinder(half: Float[Array, "3"], o: Ray, d: Ray) -> Samples:
    a, b = d[0] ** 2 + d[2] ** 2, o[0] * d[0] + o[2] * d[2]
    inside = b * b - a * (o[0] ** 2 + o[2] ** 2 - half[0] ** 2)
    depth = (-b - jnp.sqrt(jnp.maximum(inside, 0.0))) / jnp.maximum(a, 1e-9)
    side = (inside > 0) & (depth > 0) & (jnp.abs(o[1] + depth * d[1]) < half[1])
    return jnp.minimum(jnp.where(side, depth, jnp.inf), _disk(half[0], -jnp.sign(d[1]) * half[1], o, d))


def _cone(half: Float[Array, "3"], o: Ray, d: Ray) -> Samples:
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
    best: Best = (jnp.full_like(ray[0], jnp.inf), jnp.full(ray[0].shape, _FLOOR, jnp.int32))
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
    down = ray[1] > 0
    level = (jnp.where(down, 0.0, -house.height) - position[1]) * _inverse(ray[1])
    flat = level < depth
    depth = jnp.where(flat, level, depth)
    primitive = jnp.where(flat, jnp.where(down, _FLOOR, _CEILING), primitive)
    x, y, z = (position[a] + depth * ray[a] for a in range(3))
    return Hit(depth, primitive, _room_at(house, x, z), (x, y, z))


def ids_of(house: Geometry, hit: Hit) -> Int[Array, " N"]:
    """What each ray meets, as the ids of `geometry`."""
    flat = jnp.where(hit.primitive == _FLOOR, g.FLOOR, g.CEILING) + 3 * hit.room
    flat = jnp.where((hit.primitive == _CEILING) & (house.skies[hit.room, -1] > 0), g.SKY, flat)
    return jnp.where(hit.primitive < 0, flat, house.ids[jnp.maximum(hit.primitive, 0)])


class _Surface(typing.NamedTuple):
    """How each sample looks: normal, texture coordinates and their halves, colours, pattern, glow; part of the building or a thing."""

    normal: Ray
    place: tuple[Samples, Samples]
    half: tuple[Samples, Samples]
    colors: Float[Array, "6 N"]
    pattern: Int[Array, " N"]
    glow: Samples
    built: Bool[Array, " N"]


def _pick(values: Float[Array, "rooms columns"], room: Int[Array, " N"]) -> Float[Array, "columns N"]:
    """A row by room, by selection: a gather is scalar code on CPUs."""
    out = jnp.broadcast_to(values[0][:, None], (values.shape[1], room.shape[0]))
    for i in range(1, g.ROOMS):
        out = jnp.where(room == i, values[i][:, None], out)
    return out


def _rows(house: Geometry, hit: Hit) -> Float[Array, "columns N"]:
    """Each sample's row of the table. Behind a barrier, or XLA looks rows up again wherever a column is used."""
    which = jnp.maximum(hit.primitive, 0)
    columns = [house.table[:, k].at[which].get(mode="promise_in_bounds") for k in range(g.COLUMNS)]
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
    normal = tuple(jnp.where(flat, to, n) for n, to in zip(normal, (0.0, -jnp.sign(y + 1.0), 0.0), strict=True))
    u, v = jnp.where(face_x, pz, px), jnp.where(face_y, pz, -py)
    hu, hv = jnp.where(face_x, hz, hx), jnp.where(face_y, hz, hy)
    u = jnp.where(wall, jnp.where(face_x, z - room[1], x - room[0]), u)
    v = jnp.where(wall, -y, v)
    u, v = jnp.where(flat, x - room[0], u), jnp.where(flat, z - room[1], v)
    hu, hv = jnp.where(flat, room[2], hu), jnp.where(flat, room[3], hv)
    level = jnp.where(hit.primitive == _FLOOR, _pick(house.floors, hit.room), _pick(house.ceilings, hit.room))
    look = jnp.where(flat, level, row[g.FIRST.start : g.PATTERN + 1])
    glow = jnp.where(flat, 0.0, row[g.GLOW])
    return _Surface(normal, (u, v), (hu, hv), look[:6], look[6].astype(jnp.int32), glow, flat | wall)


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
    slope = jnp.where(primitive >= cone, -half[0] ** 2 / (2 * half[1]), 0.0)
    round_ = (p[0], jnp.where(primitive < cylinder, p[1], slope), p[2])
    length = jax.lax.rsqrt(jnp.maximum(round_[0] ** 2 + round_[1] ** 2 + round_[2] ** 2, 1e-9))
    flat = (on_x & is_box, (on_y & is_box) | cap, is_box & ~on_x & ~on_y)
    either = is_box | cap
    normal = tuple(
        jnp.where(either, jnp.where(f, jnp.sign(a), 0.0), r * length) for f, a, r in zip(flat, p, round_, strict=True)
    )
    return normal, on_x & is_box, flat[1]


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
    light = jnp.where(hit.primitive == _FLOOR, light * shade, light)
    return jnp.where(surface.glow > 0, 1.0, light)


def _sky(sky: Float[Array, "11 N"], ray: Ray) -> tuple[Samples, ...]:
    """Red, green and blue of the sky in each direction: a gradient and a few round clouds."""
    length = jax.lax.rsqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    up = jnp.maximum(-ray[1] * length, 0.0)
    x, z = (1.6 * a * length / (up + 0.3) for a in (ray[0], ray[2]))
    cloud = jnp.clip(3.0 * (jnp.sin(2.1 * x + 0.7) * jnp.sin(2.6 * z + 0.4) - 0.35), 0.0, 1.0) * sky[9]
    rise = jnp.sqrt(up)
    return tuple((sky[k] + (sky[3 + k] - sky[k]) * rise) * (1 - cloud) + sky[6 + k] * cloud for k in range(3))


def _colors(house: Geometry, hit: Hit, ray: Ray, sample: float) -> tuple[Samples, ...]:
    """Red, green and blue of each sample, `sample` wide at a depth of 1."""
    room = _pick(house.rooms, hit.room)
    surface = jax.lax.optimization_barrier(_surface(house, hit, room))
    nx, ny, nz = surface.normal
    length = jnp.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    slant = jnp.abs(nx * ray[0] + ny * ray[1] + nz * ray[2]) / length
    width = hit.depth * sample * jax.lax.rsqrt(jnp.maximum(slant, 0.04))
    (u, v), (hu, hv) = surface.place, surface.half
    amount = textures.second_color(
        surface.pattern, (u, v), (u / hu, v / hv), (width, width / jnp.minimum(hu, hv))
    )
    light, amount = jax.lax.optimization_barrier((_light(house, hit, surface, room), amount))
    sky = _pick(house.skies, hit.room)
    is_sky = (hit.primitive == _CEILING) & (sky[10] > 0)
    first, second = surface.colors[:3], surface.colors[3:]
    own = [light * (first[k] + (second[k] - first[k]) * amount) for k in range(3)]
    return tuple(jnp.where(is_sky, s, c) for s, c in zip(_sky(sky, ray), own, strict=True))


def _grid(height: int, width: int, n: int) -> tuple[Samples, Samples, float]:
    """Directions of n x n samples a pixel at a depth of 1, laid out [v in pixel, u in pixel, rows, columns]."""
    focal = 0.5 * width * n / np.tan(np.deg2rad(FIELD_OF_VIEW / 2))
    u = (np.arange(width * n) + 0.5 - width * n / 2) / focal
    v = (np.arange(height * n) + 0.5 - height * n / 2) / focal
    u = np.broadcast_to(u.reshape(width, n).T[None, :, None, :], (n, n, height, width))
    v = np.broadcast_to(v.reshape(height, n).T[:, None, :, None], (n, n, height, width))
    return jnp.asarray(u.reshape(-1), jnp.float32), jnp.asarray(v.reshape(-1), jnp.float32), 1.0 / float(focal)


def _rays(rotation: Float[Array, "3 3"], u: Samples, v: Samples) -> Ray:
    x, y, z = (rotation[0, a] * u + rotation[1, a] * v + rotation[2, a] for a in range(3))
    return x, y, z


@functools.partial(jax.jit, static_argnames=("height", "width"))
def render(
    house: Geometry,
    rotations: Float[Array, "T 3 3"],
    positions: Float[Array, "T 3"],
    *,
    height: int = 64,
    width: int = 96,
) -> UInt8[Array, "T height width 3"]:
    """Frames seen by cameras at absolute poses (world-to-camera rotations, centres in metres)."""
    n = SUPERSAMPLE
    u, v, sample = _grid(height, width, n)

    def frame(pose: tuple[Float[Array, "3 3"], Float[Array, "3"]]) -> UInt8[Array, "height width 3"]:
        ray = _rays(pose[0], u, v)
        hit = jax.lax.optimization_barrier(trace(house, *pose, ray, height / width))
        channels = [c.reshape(n * n, height, width).mean(0) for c in _colors(house, hit, ray, sample)]
        return jnp.round(255.0 * jnp.clip(jnp.stack(channels, -1), 0.0, 1.0)).astype(jnp.uint8)

    return jax.lax.map(frame, (rotations, positions))


@functools.partial(jax.jit, static_argnames=("height", "width"))
def what_is_where(
    house: Geometry,
    rotations: Float[Array, "T 3 3"],
    positions: Float[Array, "T 3"],
    *,
    height: int = 64,
    width: int = 96,
) -> tuple[Int[Array, "T height width"], Float[Array, "T height width"]]:
    """Ids and depths (metres along the camera's axis) at the pixels' centres, of what `render` shows."""
    u, v, _ = _grid(height, width, 1)

    def frame(pose: tuple[Float[Array, "3 3"], Float[Array, "3"]]) -> tuple[Int[Array, " N"], Samples]:
        hit = trace(house, *pose, _rays(pose[0], u, v), height / width)
        return ids_of(house, hit), hit.depth

    ids, depth = jax.lax.map(frame, (rotations, positions))
    return ids.reshape(-1, height, width), depth.reshape(-1, height, width)
