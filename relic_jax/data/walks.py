"""Camera paths through a scene: held keys, mixed keys, and ways out and back, stopped by what they run into.

A path is a list of segments. In each some keys are held at one speed; every frame's step is tried against the
scene, and a translation that would enter a wall or a box is not made. The poses say what happened.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses
from relic_jax.data.scene import Scene

TRANSLATION_UNIT = 0.1  # metres a frame at speed 1
ROTATION_UNIT = 2.0  # degrees a frame at speed 1
MARGIN = 0.4  # metres kept from every surface
MAX_ELEVATION = 24.0  # degrees that the view may look up or down
MAX_BANK = 16.0  # degrees that the picture may lean
SPEEDS = (0.5, 1.5)
SEGMENT_FRAMES = (8, 48)
_STATIC_FRAMES = 12  # the longest segment without any key

# How often a key is drawn. Pedestal and roll are rarer, as they are in use.
_KEY_WEIGHTS = dict(
    dolly_in=14, dolly_out=10, truck_left=11, truck_right=11, pedestal_up=4, pedestal_down=4,
    tilt_up=6, tilt_down=6, pan_left=14, pan_right=14, roll_cw=2.5, roll_ccw=2.5,
)  # fmt: skip
_KINDS = {"single": 0.41, "mixed": 0.41, "return": 0.18}  # of segments; ways back and forth are longer: 38 % of frames
# A segment is drawn again when less than this share of its steps is made as asked, or when it ends with its view
# closer than this to a surface, metres: a picture of one blank wall teaches nothing.
_MOVING_STEPS = 0.8
_VIEW_DISTANCE = 1.6

Rotation = Float[np.ndarray, "3 3"]
Vector = Float[np.ndarray, "3"]


@dataclasses.dataclass(frozen=True)
class Path:
    """Absolute poses in the world, float64: world-to-camera rotations and camera centres in metres."""

    rotations: Float[np.ndarray, "T 3 3"]
    positions: Float[np.ndarray, "T 3"]


def free(scene: Scene, position: Vector, margin: float = MARGIN) -> bool:
    """Whether a camera here keeps its distance from the room's sides and every box."""
    room = np.asarray(scene.room)
    middle, half = np.array([0.0, -0.5, 0.0]) * room, np.array([1.0, 0.5, 1.0]) * room
    if (np.abs(position - middle) > half - margin).any():
        return False
    outside = np.maximum(np.abs(_into_boxes(scene, position - np.asarray(scene.centers))) - scene.halves, 0)
    return bool((np.linalg.norm(outside, axis=1) > margin).all())


def _into_boxes(scene: Scene, v: Float[np.ndarray, "boxes 3"]) -> Float[np.ndarray, "boxes 3"]:
    """One vector a box, turned into the box's own axes."""
    cos, sin = np.asarray(scene.turns).T
    return np.stack([cos * v[:, 0] - sin * v[:, 2], v[:, 1], sin * v[:, 0] + cos * v[:, 2]], 1)


def view_distance(scene: Scene, rotation: Rotation, position: Vector) -> float:
    """How far the camera sees straight ahead, in metres (as `world.render` casts its rays)."""
    room, forward = np.asarray(scene.room, np.float64), np.where(np.abs(rotation[2]) < 1e-9, 1e-9, rotation[2])
    middle, half = np.array([0.0, -0.5, 0.0]) * room, np.array([1.0, 0.5, 1.0]) * room
    wall = ((half * np.sign(forward) - (position - middle)) / forward).min()
    origin = _into_boxes(scene, position - np.asarray(scene.centers))
    direction = _into_boxes(scene, np.broadcast_to(forward, origin.shape))
    inverse = 1.0 / np.where(np.abs(direction) < 1e-9, 1e-9, direction)
    reach = np.abs(inverse) * scene.halves
    near, far = (-origin * inverse - reach).max(1), (-origin * inverse + reach).min(1)
    hits = near[(near < far) & (near > 0)]
    return float(min([wall, *hits]))


def walk(
    scene: Scene, rotation: Rotation, position: Vector, actions: Float[np.ndarray, "T 13"]
) -> tuple[Path, Float[np.ndarray, "T"]]:
    """Follows actions (in this module's units) from a pose, as far as the scene lets.

    A step that would collide is tried again with one key's translation at a time and the first free one is made, or
    none. A turn beyond MAX_ELEVATION or MAX_BANK is not made.

    Returns:
      The pose after each action, and 1.0 where the step was made as asked.
    """
    turns, moves = camera_actions.steps_from_actions(np.asarray(actions, np.float64), TRANSLATION_UNIT, ROTATION_UNIT)
    rotations, positions, made = [], [], []
    for turn, move in zip(turns, moves, strict=True):
        target, asked = position, True
        for attempt in (move, *(np.diag(move)[np.argsort(-np.abs(move))])):
            if not attempt.any():
                continue
            if free(scene, position + rotation.T @ attempt):
                target = position + rotation.T @ attempt
                asked = attempt is move
                break
        else:
            asked = not move.any()
        turned = poses.orthonormalise(turn @ rotation)
        if _upright(turned) or _leaning(turned) < _leaning(rotation):
            rotation = turned
        else:
            asked = False
        position = target
        rotations.append(rotation)
        positions.append(position)
        made.append(float(asked))
    return Path(np.array(rotations), np.array(positions)), np.array(made)


def _angles(rotation: Rotation) -> tuple[float, float]:
    """Elevation of the view (positive up) and lean of the picture, in degrees."""
    right, _, forward = rotation
    return float(np.rad2deg(np.arcsin(-np.clip(forward[1], -1, 1)))), float(
        np.rad2deg(np.arcsin(np.clip(right[1], -1, 1)))
    )


def _upright(rotation: Rotation) -> bool:
    elevation, bank = _angles(rotation)
    return abs(elevation) <= MAX_ELEVATION and abs(bank) <= MAX_BANK


def _leaning(rotation: Rotation) -> float:
    elevation, bank = _angles(rotation)
    return max(abs(elevation) / MAX_ELEVATION, abs(bank) / MAX_BANK)


def start_pose(scene: Scene, rng: np.random.Generator) -> tuple[Rotation, Vector]:
    """An upright camera at eye height with free space before it."""
    room = np.asarray(scene.room, np.float64)
    best: tuple[float, Rotation, Vector] | None = None
    for _ in range(200):
        height = min(rng.uniform(1.2, 1.8), room[1] - MARGIN - 0.1)
        position = np.array([rng.uniform(-room[0], room[0]), -height, rng.uniform(-room[2], room[2])])
        rotation = np.asarray(poses.rotation_from_euler(rng.uniform(-180.0, 180.0), 0.0, 0.0))
        if not free(scene, position, 0.6):
            continue
        ahead = view_distance(scene, rotation, position)
        if best is None or ahead > best[0]:
            best = ahead, rotation, position
        if best[0] >= rng.uniform(2.5, 5.0):
            break
    if best is None:
        raise ValueError("the scene has no free place for a camera")
    return best[1], best[2]


def sample_path(scene: Scene, frames: int, rng: np.random.Generator) -> Path:
    """A path of so many frames: segments of single keys, mixed keys, and ways out and back."""
    rotation, position = start_pose(scene, rng)
    rotations, positions = [rotation[None]], [position[None]]
    while (left := frames - sum(len(r) for r in rotations)) > 0:
        kind = rng.choice(list(_KINDS), p=list(_KINDS.values()))
        here = rotations[-1][-1], positions[-1][-1]
        if kind == "return" and left >= 24:
            new = out_and_back(scene, here, left, rng)
        else:
            new = _segment(scene, here, "single" if kind == "single" else "mixed", left, rng)
        rotations.append(new.rotations[:left])
        positions.append(new.positions[:left])
    return Path(np.concatenate(rotations), np.concatenate(positions))


def _segment(scene: Scene, pose: tuple[Rotation, Vector], kind: str, limit: int, rng: np.random.Generator) -> Path:
    """One segment of held keys; drawn again, some times, when the scene is in its way."""
    best: tuple[float, Path] | None = None
    for _ in range(12):
        action = _held(pose[0], kind, rng)
        longest = _STATIC_FRAMES if action[camera_actions.STATIC] else SEGMENT_FRAMES[1]
        frames = min(int(rng.integers(SEGMENT_FRAMES[0], longest, endpoint=True)), limit)
        path, made = walk(scene, *pose, np.tile(action, (frames, 1)))
        ahead = view_distance(scene, path.rotations[-1], path.positions[-1])
        score = min(float(made.mean()) / _MOVING_STEPS, 1.0) * min(ahead / _VIEW_DISTANCE, 1.0)
        if best is None or score > best[0]:
            best = score, path
        if score == 1.0:
            break
    return best[1]


def _held(rotation: Rotation, kind: str, rng: np.random.Generator) -> Float[np.ndarray, "13"]:
    """The action of some keys held together at one speed: one key, or two or three on different axes."""
    weights = dict(_KEY_WEIGHTS)
    elevation, bank = _angles(rotation)
    # Lean back towards the level more often than away from it, or paths end at their limits.
    for key, high in (
        ("tilt_up", elevation > 8), ("tilt_down", elevation < -8), ("roll_cw", bank < -6), ("roll_ccw", bank > 6)
    ):  # fmt: skip
        if high:
            weights[key] = 0.0
            weights[camera_actions.ACTIONS[camera_actions.ACTIONS.index(key) ^ 1]] *= 3
    chosen: list[int] = []
    names = list(weights)
    for _ in range(1 if kind == "single" else int(rng.integers(2, 3, endpoint=True))):
        p = np.array([0.0 if names.index(n) // 2 in [c // 2 for c in chosen] else weights[n] for n in names])
        chosen.append(int(rng.choice(len(names), p=p / p.sum())))
    action = np.zeros(len(camera_actions.ACTIONS))
    if kind == "single" and rng.random() < 0.04:
        action[camera_actions.STATIC] = 1
    else:
        action[chosen] = rng.uniform(*SPEEDS)
    return action


def out_and_back(scene: Scene, pose: tuple[Rotation, Vector], limit: int, rng: np.random.Generator) -> Path:
    """Some segments out, a short stop, and the same poses in reverse, so that every view is seen again."""
    out = int(rng.integers(11, min(80, limit // 2), endpoint=True))
    parts, here, left = [], pose, out
    while left > 0:
        part = _segment(scene, here, rng.choice(["single", "mixed"]), left, rng)
        parts.append(part)
        here, left = (part.rotations[-1], part.positions[-1]), left - len(part.positions)
    rotations = np.concatenate([pose[0][None], *(p.rotations for p in parts)])
    positions = np.concatenate([pose[1][None], *(p.positions for p in parts)])
    hold = int(rng.integers(0, 4))
    order = [*range(1, out + 1), *[out] * hold, *range(out - 1, -1, -1)]
    return Path(rotations[order], positions[order])
