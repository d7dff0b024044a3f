"""Camera poses: rotations, paths and what the model is told about them (SPEC 2).

Internally a pose is OpenCV's: axes x right, y down, z forward; `rotation` maps world to camera coordinates and
`position` is the camera's centre in world units. Everything here works on NumPy arrays (float64, for data) and on
JAX arrays (float32, inside `jit`) alike, with any leading axes.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Array, Float

AnyArray = np.ndarray | Array
Angle = float | int | np.floating | Float[AnyArray, "..."]

FRAMES_PER_LATENT = 4
POSITION_SCALE = 10.0  # world units; keeps a room-sized path within the range of a rotation's entries


def namespace(*values: Any) -> ModuleType:
    """NumPy or `jax.numpy`, whichever the first array among the values belongs to; NumPy for plain numbers."""
    arrays = (v for v in values if hasattr(v, "__array_namespace__"))
    return next((a.__array_namespace__() for a in arrays if not isinstance(a, np.generic)), np)


def matmul(a: Float[AnyArray, "*A 3 3"], b: Float[AnyArray, "*B 3 3"]) -> Float[AnyArray, "*C 3 3"]:
    """Product of small matrices in full precision: `@` on float32 means TF32 on a GPU, and a path would drift."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def rotate(rotation: Float[AnyArray, "*A 3 3"], vector: Float[AnyArray, "*B 3"]) -> Float[AnyArray, "*C 3"]:
    """`rotation @ vector`, in full precision."""
    return (rotation * vector[..., None, :]).sum(-1)


def transpose(rotation: Float[AnyArray, "*B 3 3"]) -> Float[AnyArray, "*B 3 3"]:
    """The inverse rotation."""
    return rotation.swapaxes(-1, -2)


def rotation_from_euler(yaw: Angle, pitch: Angle, roll: Angle) -> Float[AnyArray, "... 3 3"]:
    """World-to-camera rotation of a camera that turns, from R = I, about its own axes: yaw, then pitch, then roll.

    Args:
      yaw: degrees, positive pans right. pitch: positive tilts up. roll: positive turns the camera clockwise as seen
        from behind it. Numbers or arrays that broadcast together.

    Returns:
      (R_y(yaw) R_x(pitch) R_z(roll))^T.
    """
    xp = namespace(yaw, pitch, roll)
    yaw, pitch, roll = xp.broadcast_arrays(*(xp.asarray(a) * (np.pi / 180) for a in (yaw, pitch, roll)))
    cy, sy, cp, sp, cr, sr = xp.cos(yaw), xp.sin(yaw), xp.cos(pitch), xp.sin(pitch), xp.cos(roll), xp.sin(roll)
    right = xp.stack([cy * cr + sy * sp * sr, cp * sr, cy * sp * sr - sy * cr], -1)
    down = xp.stack([sy * sp * cr - cy * sr, cp * cr, sy * sr + cy * sp * cr], -1)
    forward = xp.stack([sy * cp, -sp, cy * cp], -1)
    return xp.stack([right, down, forward], -2)


def euler_from_rotation(rotation: Float[AnyArray, "*B 3 3"]) -> tuple[Angle, Angle, Angle]:
    """Yaw, pitch, roll in degrees: the inverse of `rotation_from_euler` for |pitch| < 90 degrees."""
    xp = namespace(rotation)
    r = rotation
    yaw = xp.arctan2(r[..., 2, 0], r[..., 2, 2])
    pitch = xp.arctan2(-r[..., 2, 1], xp.hypot(r[..., 2, 0], r[..., 2, 2]))
    roll = xp.arctan2(r[..., 0, 1], r[..., 1, 1])
    return yaw * (180 / np.pi), pitch * (180 / np.pi), roll * (180 / np.pi)


def orthonormalise(rotation: Float[AnyArray, "*B 3 3"]) -> Float[AnyArray, "*B 3 3"]:
    """The rotation nearest to a matrix that nearly is one (singular values within 0.1 of 1).

    Newton-Schulz for the polar factor, X <- X (3 I - X^T X) / 2: quadratic, and cheaper in a jitted step than an SVD.
    """
    identity = np.eye(3, dtype=rotation.dtype)
    for _ in range(4):
        rotation = matmul(rotation, 1.5 * identity - 0.5 * matmul(transpose(rotation), rotation))
    return rotation


def relative(
    rotations: Float[AnyArray, "*B T 3 3"], positions: Float[AnyArray, "*B T 3"]
) -> tuple[Float[AnyArray, "*B T 3 3"], Float[AnyArray, "*B T 3"]]:
    """The same path with its first frame as origin (R = I, P = 0)."""
    first = rotations[..., :1, :, :]
    return matmul(rotations, transpose(first)), rotate(first, positions - positions[..., :1, :])


def reverse(
    rotations: Float[AnyArray, "*B T 3 3"], positions: Float[AnyArray, "*B T 3"]
) -> tuple[Float[AnyArray, "*B T 3 3"], Float[AnyArray, "*B T 3"]]:
    """The path run backwards, with its last frame as the new origin."""
    return relative(rotations[..., ::-1, :, :], positions[..., ::-1, :])


def chain(steps: Float[AnyArray, "*B T 3 3"]) -> Float[AnyArray, "*B T 3 3"]:
    """Cumulative products: out[t] = steps[t] ... steps[1] steps[0].

    Recursive doubling: log2(T) batched products, so no loop over time neither here nor in a compiled program.
    """
    xp = namespace(steps)
    span = 1
    while span < steps.shape[-3]:
        later = matmul(steps[..., span:, :, :], steps[..., :-span, :, :])
        steps = xp.concat([steps[..., :span, :, :], later], axis=-3)
        span *= 2
    return steps


def pose_vectors(
    rotations: Float[AnyArray, "*B T 3 3"], positions: Float[AnyArray, "*B T 3"]
) -> Float[AnyArray, "*B T 12"]:
    """What the pose encoder sees of a frame: the rotation's rows, then the position over `POSITION_SCALE`."""
    xp = namespace(rotations)
    return xp.concat([rotations.reshape(*rotations.shape[:-2], 9), positions / POSITION_SCALE], axis=-1)


def pad_first(values: Float[AnyArray, "*B T C"]) -> Float[AnyArray, "*B F C"]:
    """Three copies of the first frame in front of T = 4 (L - 1) + 1 frames, so that 4 frames belong to each latent."""
    return namespace(values).concat([values[..., :1, :]] * (FRAMES_PER_LATENT - 1) + [values], axis=-2)


def group(values: Float[AnyArray, "*B F C"]) -> Float[AnyArray, "*B L D"]:
    """[4 L frames, C] -> [L latents, 4 C], the frames of a latent in order of time.

    Raises:
      ValueError: the frames are no multiple of 4.
    """
    *batch, frames, channels = values.shape
    if frames % FRAMES_PER_LATENT:
        raise ValueError(f"{frames} frames do not fill latents of {FRAMES_PER_LATENT}; expected a multiple of it")
    return values.reshape(*batch, frames // FRAMES_PER_LATENT, FRAMES_PER_LATENT * channels)


def pose_features(
    rotations: Float[AnyArray, "*B T 3 3"], positions: Float[AnyArray, "*B T 3"]
) -> Float[AnyArray, "*B L 48"]:
    """The pose encoder's input for a clip from its first frame on: T = 4 (L - 1) + 1 poses -> L latents."""
    return group(pad_first(pose_vectors(rotations, positions)))
