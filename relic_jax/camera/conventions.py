"""Camera conventions and the way between them (SPEC 2).

A convention names the axes of both world and camera and the length of a world unit. In each of them a rotation is
world-to-camera and a position is the camera's centre. Internally everything is "opencv".
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from relic_jax import outside
from relic_jax.camera import poses
from relic_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Convention:
    """`to_opencv` maps a vector in these axes to (right, down, forward); `metres` is the length of a world unit."""

    to_opencv: tuple[tuple[int, int, int], ...]
    metres: float


CONVENTIONS = {
    # x right, y down, z forward; right-handed, metres
    "opencv": Convention(((1, 0, 0), (0, 1, 0), (0, 0, 1)), 1.0),
    # x forward, y right, z up; left-handed, centimetres
    "unreal": Convention(((0, 1, 0), (0, 0, -1), (1, 0, 0)), 0.01),
    # x right, y up, z backward; right-handed, metres
    "opengl": Convention(((1, 0, 0), (0, -1, 0), (0, 0, -1)), 1.0),
}

_ROTATION_TOLERANCE = 1e-3


def named(name: str | None) -> Convention:
    """The convention of this name.

    Raises:
      InputError: no name was given, or no convention is called so.
    """
    if name is None or name not in CONVENTIONS:
        given = "none was given" if not name else f"got {name!r}"
        raise InputError(f"camera convention: expected one of {', '.join(CONVENTIONS)}, {given}")
    return CONVENTIONS[name]


def convert(
    rotations: Float[np.ndarray, "T 3 3"], positions: Float[np.ndarray, "T 3"], from_: str | None, to: str | None
) -> tuple[Float[np.ndarray, "T 3 3"], Float[np.ndarray, "T 3"]]:
    """The same path in another convention, float64.

    Raises:
      InputError: a convention is missing or unknown, a matrix is not a rotation, or a position is
        not finite (names the frame).
    """
    source, target = named(from_), named(to)
    check_rotations(rotations)
    outside.array(positions, "positions", ("frame",))
    axes = np.array(target.to_opencv, np.float64).T @ np.array(source.to_opencv, np.float64)
    return axes @ rotations @ axes.T, positions @ axes.T * (source.metres / target.metres)


def from_unreal(
    rotators: Float[np.ndarray, "T 3"], locations: Float[np.ndarray, "T 3"]
) -> tuple[Float[np.ndarray, "T 3 3"], Float[np.ndarray, "T 3"]]:
    """Unreal's FRotator (pitch, yaw, roll in degrees) and location (cm) as an OpenCV path.

    Unreal turns by yaw, then pitch, then roll, positive to the right, up and clockwise: our Euler angles exactly.

    Raises:
      InputError: a number is not finite (names the frame).
    """
    pitch, yaw, roll = outside.array(rotators, "rotators", ("frame",), last=("pitch", "yaw", "roll")).T
    locations = outside.array(locations, "locations", ("frame",))
    axes = np.array(CONVENTIONS["unreal"].to_opencv, np.float64)
    rotations = np.asarray(poses.rotation_from_euler(yaw, pitch, roll))
    return rotations, locations @ axes.T * CONVENTIONS["unreal"].metres


def to_unreal(
    rotations: Float[np.ndarray, "T 3 3"], positions: Float[np.ndarray, "T 3"]
) -> tuple[Float[np.ndarray, "T 3"], Float[np.ndarray, "T 3"]]:
    """An OpenCV path as Unreal's FRotators (pitch, yaw, roll in degrees) and locations (cm)."""
    yaw, pitch, roll = poses.euler_from_rotation(rotations)
    axes = np.array(CONVENTIONS["unreal"].to_opencv, np.float64)
    return np.stack([pitch, yaw, roll], -1), positions @ axes / CONVENTIONS["unreal"].metres


def check_rotations(rotations: Float[np.ndarray, "T 3 3"]) -> None:
    """Raises InputError, naming the first frame whose matrix is not a proper rotation to within 1e-3."""
    rotations = np.asarray(rotations, np.float64)
    error = np.abs(rotations @ np.swapaxes(rotations, -1, -2) - np.eye(3)).max((-1, -2))
    good = (error < _ROTATION_TOLERANCE) & (np.linalg.det(np.nan_to_num(rotations)) > 0)  # NaN compares false
    if not good.all():
        frame = int(np.argmin(good))
        raise InputError(
            f"rotation of frame {frame}: expected an orthonormal 3x3 matrix with determinant 1, "
            f"got {np.array2string(rotations[frame], precision=3, separator=', ').replace(chr(10), '')}"
        )
