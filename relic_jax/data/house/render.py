"""The renderer of houses: frames, and what is at each pixel and how far away; jitted and deterministic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from relic_jax.data.house.cast import FIELD_OF_VIEW, Ray, Samples, ids_of, trace
from relic_jax.data.house.geometry import Geometry
from relic_jax.data.house.shade import colors

SUPERSAMPLE = 2  # rays per pixel side


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
        channels = [c.reshape(n * n, height, width).mean(0) for c in colors(house, hit, ray, sample)]
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
