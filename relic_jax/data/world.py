"""The renderer of procedural scenes: one ray cast per sample, jitted and deterministic."""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from relic_jax.data.scene import BOX, CEILING, ROOM, SKY, SURFACE, Scene, build_scene

FIELD_OF_VIEW = 80.0  # horizontal, degrees
SUPERSAMPLE = 2  # rays per pixel side


Samples = Float[Array, " N"]  # one number a ray
Ray = tuple[Samples, Samples, Samples]  # directions in the world, of any length


class Hit(typing.NamedTuple):
    """What each ray meets: how far away, where on the surface in the surface's own axes, and how it looks."""

    distance: Samples
    is_sky: Bool[Array, " N"]
    point: Ray
    edges: Ray  # distance from the point to the sides of the box, along its axes
    look: Float[Array, "features N"]  # rows of `scene.Surface`


def _nearest_box(scene: Scene, position: Float[Array, "3"], ray: Ray) -> tuple[Samples, Int[Array, " N"]]:
    """Distance along each ray to the first box and which one (-1: none), by the slab test."""

    def visit(i: Int[Array, ""], best: tuple[Samples, Int[Array, " N"]]) -> tuple[Samples, Int[Array, " N"]]:
        distance, index = best
        cos, sin = scene.turns[i, 0], scene.turns[i, 1]
        p = position - scene.centers[i]
        origin = (cos * p[0] - sin * p[2], p[1], sin * p[0] + cos * p[2])
        direction = (cos * ray[0] - sin * ray[2], ray[1], sin * ray[0] + cos * ray[2])
        near, far = -jnp.inf, jnp.inf
        for o, d, h in zip(origin, direction, scene.halves[i], strict=True):
            inverse = 1.0 / jnp.where(jnp.abs(d) < 1e-9, 1e-9, d)
            reach = jnp.abs(inverse) * h
            near = jnp.maximum(near, -o * inverse - reach)
            far = jnp.minimum(far, -o * inverse + reach)
        hit = (near < far) & (near > 0) & (near < distance)
        return jnp.where(hit, near, distance), jnp.where(hit, i, index)

    start = (jnp.full_like(ray[0], jnp.inf), jnp.full(ray[0].shape, -1, jnp.int32))
    # A loop, not unrolled code: five times as fast on CPUs, and only the boxes in use cost anything.
    return jax.lax.fori_loop(0, scene.boxes, visit, start)


def _room_exit(scene: Scene, position: Float[Array, "3"], ray: Ray) -> tuple[Samples, Int[Array, " N"]]:
    """Distance to the room's inner face along each ray, and the face's number 0..5."""
    middle, half = _room_box(scene)
    distance, face = jnp.full_like(ray[0], jnp.inf), jnp.zeros(ray[0].shape, jnp.int32)
    for axis in range(3):
        d = jnp.where(jnp.abs(ray[axis]) < 1e-9, 1e-9, ray[axis])
        t = (half[axis] * jnp.sign(d) - (position[axis] - middle[axis])) / d
        face = jnp.where(t < distance, 2 * axis + (d > 0), face)
        distance = jnp.minimum(distance, t)
    return distance, face


def _room_box(scene: Scene) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    return jnp.array([0.0, -0.5, 0.0]) * scene.room, jnp.array([1.0, 0.5, 1.0]) * scene.room


def trace(scene: Scene, position: Float[Array, "3"], ray: Ray) -> Hit:
    """What each ray from `position` meets first."""
    wall, face = _room_exit(scene, position, ray)
    box, index = _nearest_box(scene, position, ray)
    is_box = box < wall
    distance = jnp.where(is_box, box, wall)
    is_sky = ~is_box & (face == CEILING) & (scene.sky > 0)
    surface = jnp.where(is_sky, SKY, jnp.where(is_box, BOX + index, ROOM + face))

    middle, half = _room_box(scene)
    upright = jnp.array([1.0, 0.0])
    geometry = [
        jnp.concatenate([jnp.tile(of_room, (BOX, 1)), of_boxes])
        for of_room, of_boxes in ((middle, scene.centers), (half, scene.halves), (upright, scene.turns))
    ]
    rows = _lookup(jnp.concatenate([scene.surfaces, *geometry], 1), surface)
    mx, my, mz, hx, hy, hz, cos, sin = rows[SURFACE.size :]
    px, py, pz = (position[a] + distance * ray[a] - m for a, m in enumerate((mx, my, mz)))
    up = _elevation(ray)
    # The sky's point is one on a flat layer of clouds.
    x = jnp.where(is_sky, 2.0 * ray[0] / (up + 0.25), cos * px - sin * pz)
    y = jnp.where(is_sky, 0.0, py)
    z = jnp.where(is_sky, 2.0 * ray[2] / (up + 0.25), sin * px + cos * pz)
    edges = (hx - jnp.abs(x), hy - jnp.abs(y), hz - jnp.abs(z))
    return Hit(distance, is_sky, (x, y, z), edges, rows[: SURFACE.size])


def _elevation(ray: Ray) -> Samples:
    """Sine of the ray's elevation, 0 below the horizon."""
    return jnp.maximum(-ray[1], 0.0) / jnp.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)


def _lookup(table: Float[Array, "surfaces columns"], rows: Int[Array, " N"]) -> Float[Array, "columns N"]:
    """`table[rows].T`, as a product with a one-hot matrix: a gather is scalar code on CPUs."""
    one_hot = (rows[None, :] == jnp.arange(table.shape[0])[:, None]).astype(jnp.float32)
    return jax.lax.dot(table.T, one_hot, precision=jax.lax.Precision.HIGHEST)


def _wave(cycles: Samples) -> Samples:
    """A smooth wave of period 1 and range [-1, 1]: sin(2 pi x) by parabolas, which vectorises on every CPU."""
    x = cycles - jnp.floor(cycles) - 0.5
    return -16.0 * x * (0.5 - jnp.abs(x))


def _color(hit: Hit, ray: Ray) -> tuple[Samples, Samples, Samples]:
    """The surface's own red, green and blue: two colours in a pattern, a third in slow waves, and a trim."""
    look, (x, y, z) = hit.look, hit.point
    rates = look[SURFACE.waves].reshape(4, 4, -1)
    a, b, c, d = (_wave(r[0] * x + r[1] * y + r[2] * z + r[3]) for r in rates)
    product = look[SURFACE.product]
    pattern = jnp.clip(0.5 + look[SURFACE.contrast] * ((1 - product) * 0.5 * (a + b) + product * a * b), 0.0, 1.0)
    pattern = jnp.where(hit.is_sky, jnp.sqrt(_elevation(ray)), pattern)
    slow = jnp.where(hit.is_sky, 0.5 * (a + b) + 0.5 * c, 0.5 * (c + d))
    amount = look[SURFACE.third_amount] * jnp.clip(0.3 + 0.9 * slow, 0.0, 1.0)
    trimmed = (_edge_distance(hit) < look[SURFACE.trim_width]) & ~hit.is_sky
    channels = []
    for k in range(3):
        first, second, third, trim = (look[3 * i + k] for i in range(4))
        color = first + (second - first) * pattern
        channels.append(jnp.where(trimmed, trim, color + (third - color) * amount))
    return tuple(channels)


def _edge_distance(hit: Hit) -> Samples:
    """How near the point is to an edge of its face: the second smallest distance to a side of the box."""
    ex, ey, ez = hit.edges
    return jnp.maximum(jnp.minimum(ex, ey), jnp.minimum(jnp.maximum(ex, ey), ez))


def _light(hit: Hit) -> Samples:
    """Brightness: by the face's direction, darker in the room's corners and a little with distance."""
    (x, y, z), (ex, ey, ez), look = hit.point, hit.edges, hit.look
    smallest = jnp.minimum(jnp.minimum(ex, ey), ez)
    left, right, top, bottom, back, front = look[SURFACE.light]
    on_x, on_y, on_z = jnp.where(x > 0, right, left), jnp.where(y > 0, bottom, top), jnp.where(z > 0, front, back)
    light = jnp.where(ex == smallest, on_x, jnp.where(ey == smallest, on_y, on_z))
    shadow = 1.0 - look[SURFACE.shadow] * jnp.square(jnp.clip(1.0 - _edge_distance(hit) / 0.7, 0.0, 1.0))
    falloff = 0.78 + 0.3 / (1.0 + jnp.square(hit.distance / 7.0))
    return jnp.where(hit.is_sky, 1.0, light * shadow * falloff)


@functools.partial(jax.jit, static_argnames=("height", "width"))
def render(
    scene: Scene,
    rotations: Float[Array, "T 3 3"],
    positions: Float[Array, "T 3"],
    *,
    height: int = 64,
    width: int = 96,
) -> UInt8[Array, "T height width 3"]:
    """Frames seen by cameras at absolute poses (world-to-camera rotations, centres in metres)."""
    n = SUPERSAMPLE
    focal = 0.5 * width * n / np.tan(np.deg2rad(FIELD_OF_VIEW / 2))
    u = (np.arange(width * n) + 0.5 - width * n / 2) / focal
    v = (np.arange(height * n) + 0.5 - height * n / 2) / focal
    # Laid out as [v in pixel, u in pixel, rows, columns]: the mean over a pixel's samples is a sum of planes.
    u = np.broadcast_to(u.reshape(width, n).T[None, :, None, :], (n, n, height, width))
    v = np.broadcast_to(v.reshape(height, n).T[:, None, :, None], (n, n, height, width))
    u, v = jnp.asarray(u.reshape(-1), jnp.float32), jnp.asarray(v.reshape(-1), jnp.float32)

    def frame(pose: tuple[Float[Array, "3 3"], Float[Array, "3"]]) -> UInt8[Array, "height width 3"]:
        rotation, position = pose
        ray = tuple(rotation[0, a] * u + rotation[1, a] * v + rotation[2, a] for a in range(3))
        hit = trace(scene, position, ray)
        light = _light(hit)
        image = jnp.stack([jnp.mean((light * c).reshape(n * n, height, width), 0) for c in _color(hit, ray)], -1)
        return jnp.round(255.0 * jnp.clip(image, 0.0, 1.0)).astype(jnp.uint8)

    return jax.lax.map(frame, (rotations, positions))


def render_clip(
    seed: int,
    start_rotation: Float[np.ndarray, "3 3"],
    start_position: Float[np.ndarray, "3"],
    rotations: Float[np.ndarray, "T 3 3"],
    positions: Float[np.ndarray, "T 3"],
    *,
    height: int = 64,
    width: int = 96,
) -> UInt8[np.ndarray, "T height width 3"]:
    """What a camera sees in a seed's scene: the ground truth of any path.

    Args:
      start_rotation, start_position: absolute pose of the first frame, as a clip stores it.
      rotations, positions: poses relative to it (R_0 = I, P_0 = 0). They may pass through walls.
    """
    start = np.asarray(start_rotation, np.float64)
    absolute_rotations = np.asarray(rotations, np.float64) @ start
    absolute_positions = np.asarray(start_position, np.float64) + np.asarray(positions, np.float64) @ start
    scene, _ = build_scene(seed)
    frames = render(
        scene, absolute_rotations.astype(np.float32), absolute_positions.astype(np.float32), height=height, width=width
    )
    return np.asarray(frames)
