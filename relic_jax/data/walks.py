"""Camera paths through a scene: held keys, mixed keys, and ways out and back, stopped by what they run into.

A path is a list of segments. In each some keys are held at one speed; every frame's step is tried against the
scene, and a translation that would enter a wall or a box is not made. The poses say what happened.
"""

import dataclasses
import typing

import numpy as np
from jaxtyping import Float

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses

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
_GO_KEYS = {"dolly_in": 0.0, "dolly_out": 180.0, "truck_left": -90.0, "truck_right": 90.0}  # where each moves
_THROUGH = 0.28  # of the times at which a segment begins in a room with doorways, the camera goes through one

Rotation = Float[np.ndarray, "3 3"]
Vector = Float[np.ndarray, "3"]


@dataclasses.dataclass(frozen=True)
class Path:
    """Absolute poses in the world, float64: world-to-camera rotations and camera centres in metres."""

    rotations: Float[np.ndarray, "T 3 3"]
    positions: Float[np.ndarray, "T 3"]


@typing.runtime_checkable
class Scene(typing.Protocol):
    """What a path needs to know of a world; `scene.Scene` and `house.scene.House` are such."""

    @property
    def bounds(self) -> tuple[Vector, Vector]:
        """Opposite corners (least and greatest x, y, z) of the box in which a camera may be."""
        ...

    def free(self, position: Vector, margin: float) -> bool:
        """Whether a camera here keeps its distance from everything."""
        ...

    def view_distance(self, rotation: Rotation, position: Vector) -> float:
        """How far the camera sees straight ahead, in metres."""
        ...

    def ways(self, position: Vector) -> list[Float[np.ndarray, "2 2"]]:
        """For each doorway within reach: a place before it and one beyond it, x and z."""
        ...


def free(scene: Scene, position: Vector, margin: float = MARGIN) -> bool:
    """Whether a camera here keeps its distance from the world's surfaces."""
    return scene.free(position, margin)


def view_distance(scene: Scene, rotation: Rotation, position: Vector) -> float:
    """How far the camera sees straight ahead, in metres (as the renderer casts its rays)."""
    return scene.view_distance(rotation, position)


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
    low, high = scene.bounds
    best: tuple[float, Rotation, Vector] | None = None
    for _ in range(200):
        height = min(rng.uniform(1.2, 1.8), -low[1] - MARGIN - 0.1)
        position = np.array([rng.uniform(low[0], high[0]), -height, rng.uniform(low[2], high[2])])
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
    """A path of so many frames: segments of single keys, mixed keys, ways out and back, and through doorways."""
    rotation, position = start_pose(scene, rng)
    rotations, positions = [rotation[None]], [position[None]]
    while (left := frames - sum(len(r) for r in rotations)) > 0:
        here = rotations[-1][-1], positions[-1][-1]
        through = _through(scene, here, rng)
        kind = rng.choice(list(_KINDS), p=list(_KINDS.values()))
        if through is not None:
            new = through
        elif kind == "return" and left >= 24:
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


def _through(scene: Scene, pose: tuple[Rotation, Vector], rng: np.random.Generator) -> Path | None:
    """Now and then, where there is a doorway: the way through it, if nothing stands in it."""
    ways = scene.ways(pose[1])
    if not ways or rng.random() > _THROUGH:
        return None
    way = ways[int(rng.integers(len(ways)))]
    keys = [str(k) for k in rng.choice(list(_GO_KEYS), 2, replace=False, p=[0.25, 0.25, 0.25, 0.25])]
    key = min(keys, key=lambda k: abs(_turn_to(pose, way[0], k)))  # the lesser turn: less time in which nothing comes
    path, made = go(scene, pose, way, rng.uniform(0.9, SPEEDS[1]), key)
    return path if made > _MOVING_STEPS else None


def _turn_to(pose: tuple[Rotation, Vector], place: Float[np.ndarray, "2"], key: str) -> float:
    """Degrees to pan right until a key moves a level camera towards a place."""
    to = place - pose[1][[0, 2]]
    bearing = float(np.rad2deg(np.arctan2(to[0], to[1])) - poses.euler_from_rotation(pose[0])[0])
    return (bearing - _GO_KEYS[key] + 180.0) % 360.0 - 180.0


def go(
    scene: Scene,
    pose: tuple[Rotation, Vector],
    places: Float[np.ndarray, "places 2"],
    speed: float,
    key: str = "dolly_in",
) -> tuple[Path, float]:
    """To one place (x, z) after another, by single keys: level the view, pan until the place lies right, move.

    Args:
      key: what moves the camera, one of dolly_in, dolly_out, truck_left and truck_right.

    Returns:
      The path, and the share of its steps that the scene let be made as asked.
    """
    paths: list[Path] = []
    steps: list[Float[np.ndarray, "T"]] = []

    def hold(key: str, amount: float, unit: float) -> None:
        frames = int(np.ceil(round(amount / (unit * speed), 6)))
        if frames:
            action = np.zeros((frames, len(camera_actions.ACTIONS)))
            action[:, camera_actions.ACTIONS.index(key)] = amount / (unit * frames)
            here = (paths[-1].rotations[-1], paths[-1].positions[-1]) if paths else pose
            path, made = walk(scene, *here, action)
            paths.append(path)
            steps.append(made)

    _, pitch, roll = (float(a) for a in poses.euler_from_rotation(pose[0]))
    hold("roll_ccw" if roll > 0 else "roll_cw", abs(roll), ROTATION_UNIT)
    hold("tilt_down" if pitch > 0 else "tilt_up", abs(pitch), ROTATION_UNIT)
    for place in places:
        here = (paths[-1].rotations[-1], paths[-1].positions[-1]) if paths else pose
        turn = _turn_to(here, place, key)
        hold("pan_right" if turn > 0 else "pan_left", abs(turn), ROTATION_UNIT)
        hold(key, float(np.hypot(*(place - here[1][[0, 2]]))), TRANSLATION_UNIT)
    if not paths:
        return Path(pose[0][None], pose[1][None]), 1.0
    path = Path(np.concatenate([p.rotations for p in paths]), np.concatenate([p.positions for p in paths]))
    return path, float(np.concatenate(steps).mean())


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
    through = _through(scene, pose, rng)
    if through is not None:
        parts = [Path(through.rotations[:out], through.positions[:out])]
        here, left = (parts[0].rotations[-1], parts[0].positions[-1]), out - len(parts[0].positions)
    while left > 0:
        part = _segment(scene, here, rng.choice(["single", "mixed"]), left, rng)
        parts.append(part)
        here, left = (part.rotations[-1], part.positions[-1]), left - len(part.positions)
    rotations = np.concatenate([pose[0][None], *(p.rotations for p in parts)])
    positions = np.concatenate([pose[1][None], *(p.positions for p in parts)])
    hold = int(rng.integers(0, 4))
    order = [*range(1, out + 1), *[out] * hold, *range(out - 1, -1, -1)]
    return Path(rotations[order], positions[order])
