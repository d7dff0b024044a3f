"""Camera actions: 13 non-negative magnitudes a frame, from poses and back (SPEC 2, the paper's Algorithm 1).

Action a_t leads from frame t-1 to frame t, so T frames have T actions and the first is static. With
dR_t = R_t R_{t-1}^T and dP_t = R_{t-1} (P_t - P_{t-1}), the step in the earlier camera's own axes, each axis is split
into its two directions. Magnitude 1 is `translation_unit` world units, or `rotation_unit` degrees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from relic_jax import outside
from relic_jax.camera import poses
from relic_jax.camera.poses import AnyArray
from relic_jax.errors import InputError

ACTIONS = (
    "dolly_in", "dolly_out", "truck_left", "truck_right", "pedestal_up", "pedestal_down",
    "tilt_up", "tilt_down", "pan_left", "pan_right", "roll_cw", "roll_ccw", "static",
)  # fmt: skip
STATIC = ACTIONS.index("static")

# A camera that moves less than this from a frame to the next stands still: above float32 noise of poses in metres,
# far below what a viewer sees.
STILL_DISTANCE = 1e-4  # world units
STILL_DEGREES = 1e-3

MAX_MAGNITUDE = 1000.0  # of a direction; the fastest key script, keys.ROTATION at keys.MAX_SPEED, stays below

_OPPOSITE = np.array([1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12])


def steps_from_poses(
    rotations: Float[AnyArray, "*B T 3 3"], positions: Float[AnyArray, "*B T 3"]
) -> tuple[Float[AnyArray, "*B N 3 3"], Float[AnyArray, "*B N 3"]]:
    """The N = T - 1 steps (dR, dP) between neighbouring frames."""
    before, after = rotations[..., :-1, :, :], rotations[..., 1:, :, :]
    turns = poses.matmul(after, poses.transpose(before))
    return turns, poses.rotate(before, positions[..., 1:, :] - positions[..., :-1, :])


def actions_from_steps(
    turns: Float[AnyArray, "*B T 3 3"],
    moves: Float[AnyArray, "*B T 3"],
    translation_unit: float,
    rotation_unit: float = 1.0,
) -> Float[AnyArray, "*B T 13"]:
    """Each step (dR, dP) as an action. A step below the two STILL thresholds is also marked static = 1."""
    xp = poses.namespace(moves)
    yaw, pitch, roll = poses.euler_from_rotation(turns)
    x, y, z = (moves[..., i] / translation_unit for i in range(3))
    still = xp.linalg.vector_norm(moves, axis=-1) < STILL_DISTANCE
    for angle in (yaw, pitch, roll):
        still &= abs(angle) < STILL_DEGREES
    yaw, pitch, roll = (angle / rotation_unit for angle in (yaw, pitch, roll))
    directions = (z, -z, -x, x, -y, y, pitch, -pitch, -yaw, yaw, roll, -roll)
    magnitudes = [xp.maximum(value, xp.zeros_like(value)) for value in directions]
    return xp.stack([*magnitudes, still.astype(moves.dtype)], axis=-1)


def steps_from_actions(
    actions: Float[AnyArray, "*B T 13"], translation_unit: float, rotation_unit: float = 1.0
) -> tuple[Float[AnyArray, "*B T 3 3"], Float[AnyArray, "*B T 3"]]:
    """Each action as a step (dR, dP); the inverse of `actions_from_steps` for turns below 90 degrees of pitch."""
    xp = poses.namespace(actions)
    dolly, truck, pedestal, tilt, pan, roll = (actions[..., i] - actions[..., i + 1] for i in range(0, 12, 2))
    turns = poses.rotation_from_euler(-pan * rotation_unit, tilt * rotation_unit, roll * rotation_unit)
    return turns, xp.stack([-truck, -pedestal, dolly], axis=-1) * translation_unit


def actions_from_poses(
    rotations: Float[AnyArray, "T 3 3"], positions: Float[AnyArray, "T 3"], rotation_unit: float = 1.0
) -> tuple[Float[AnyArray, "T 13"], float]:
    """Algorithm 1: the actions of one clip and its translation unit. For the host, not for use inside `jit`.

    Args:
      rotations: world-to-camera. positions: camera centres in world units.
      rotation_unit: degrees of an action of magnitude 1.

    Returns:
      actions, the first of them static, and the unit: the mean length of the steps of at least STILL_DISTANCE, in
      world units a frame; 1.0 for a clip that has none.
    """
    xp = poses.namespace(rotations)
    turns, moves = steps_from_poses(rotations, positions)
    lengths = np.linalg.norm(np.asarray(moves), axis=-1)
    lengths = lengths[lengths >= STILL_DISTANCE]
    unit = float(lengths.mean()) if lengths.size else 1.0
    actions = actions_from_steps(turns, moves, unit, rotation_unit)
    return xp.concat([xp.asarray(static_actions(1), dtype=actions.dtype), actions], axis=0), unit


def advance(
    rotation: Float[AnyArray, "*B 3 3"],
    position: Float[AnyArray, "*B 3"],
    actions: Float[AnyArray, "*B T 13"],
    translation_unit: float,
    rotation_unit: float = 1.0,
) -> tuple[Float[AnyArray, "*B T 3 3"], Float[AnyArray, "*B T 3"]]:
    """The pose after each action, going on from a pose: R_t = dR_t R_{t-1}, P_t = P_{t-1} + R_{t-1}^T dP_t.

    The pose of a stream's last frame is the next block's start. It is orthonormalised first, so that a session
    of any length in float32 keeps a rotation.
    """
    xp = poses.namespace(actions)
    turns, moves = steps_from_actions(actions, translation_unit, rotation_unit)
    start = poses.orthonormalise(rotation)[..., None, :, :]
    rotations = poses.matmul(poses.chain(turns), start)
    before = xp.concat([start, rotations[..., :-1, :, :]], axis=-3)
    world_moves = poses.rotate(poses.transpose(before), moves)
    return rotations, position[..., None, :] + xp.cumsum(world_moves, axis=-2)


def poses_from_actions(
    actions: Float[AnyArray, "*B T 13"],
    translation_unit: float,
    rotation_unit: float = 1.0,
    initial: tuple[Float[AnyArray, "*B 3 3"], Float[AnyArray, "*B 3"]] | None = None,
) -> tuple[Float[AnyArray, "*B T 3 3"], Float[AnyArray, "*B T 3"]]:
    """The pose of each frame, after its action; from the origin (R = I, P = 0) unless `initial` says otherwise."""
    xp = poses.namespace(actions)
    if initial is None:
        batch = actions.shape[:-2]
        eye = xp.broadcast_to(xp.eye(3, dtype=actions.dtype), (*batch, 3, 3))
        initial = (eye, xp.zeros((*batch, 3), dtype=actions.dtype))
    return advance(*initial, actions, translation_unit, rotation_unit)


def static_actions(frames: int) -> Float[np.ndarray, "T 13"]:
    """Actions of a camera that stands still, float32."""
    actions = np.zeros((frames, len(ACTIONS)), np.float32)
    actions[:, STATIC] = 1
    return actions


def checked(values: Any, name: str = "actions") -> Float[np.ndarray, "T 13"]:
    """Somebody's actions, a row a frame, as float32 of their own: finite, none negative, none absurd.

    Raises:
      InputError: they have another shape, or names the first frame and direction that is none of this.
    """
    shape = np.shape(values)
    if len(shape) != 2 or shape[1] != len(ACTIONS) or not shape[0]:
        raise InputError(f"{name} has shape {shape}, expected [frames, {len(ACTIONS)}] with at least one frame")
    found = outside.array(values, name, ("frame",), least=0, most=MAX_MAGNITUDE, last=ACTIONS)
    return found.astype(np.float32)


def reversed_actions(
    actions: Float[AnyArray, "*B T 13"], translation_unit: float, rotation_unit: float = 1.0
) -> Float[AnyArray, "*B T 13"]:
    """The actions that lead back the way these came: last step first, each undone by dR^T and -dR dP (SPEC 8)."""
    turns, moves = steps_from_actions(actions[..., ::-1, :], translation_unit, rotation_unit)
    return actions_from_steps(poses.transpose(turns), -poses.rotate(turns, moves), translation_unit, rotation_unit)


def mirrored(actions: Float[AnyArray, "*B T 13"]) -> Float[AnyArray, "*B T 13"]:
    """Every axis the other way: in for out, left for right, up for down, clockwise for counter-clockwise."""
    return actions[..., _OPPOSITE]


def speed(actions: Float[AnyArray, "*B T 13"], gamma: float) -> Float[AnyArray, "*B T 13"]:
    """The actions gamma times as fast; `static` is a flag and stays."""
    factors = np.full(len(ACTIONS), gamma)
    factors[STATIC] = 1
    return actions * factors.astype(actions.dtype)


def action_features(actions: Float[AnyArray, "*B T 13"]) -> Float[AnyArray, "*B L 52"]:
    """The action encoder's input for a clip from its first frame on: T = 4 (L - 1) + 1 actions -> L latents.

    A stream that goes on has whole latents: `poses.group` on [B, 4 L, 13] gives the same layout.
    """
    return poses.group(poses.pad_first(actions))
