"""The clip: some seconds of video with exact camera poses. What is in a record, and what makes one valid.

A record of a clip data set (TFDS features, one array_record entry):

    video           uint8   [T, H, W, 3]  frames, RGB
    rotations       float32 [T, 3, 3]     world-to-camera, relative to the first frame: R_0 = I
    positions       float32 [T, 3]        camera centres in world units, relative to the first frame: P_0 = 0
    actions         float32 [T, 13]       `camera.actions.ACTIONS`; a_t leads from frame t-1 to t, a_0 is static
    unit            float32               world units of a translation of magnitude 1 (the clip's mean step)
    caption         str                   static attributes of the scene
    seed            int64                 the scene (procedural worlds; -1: none)
    start_rotation  float32 [3, 3]        absolute pose of the first frame in the scene, so that the renderer can
    start_position  float32 [3]             show what any other actions would have seen
    convention      str                   camera axes of all poses: a name of `camera.conventions.CONVENTIONS`
    fps             float32               frames per second
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from relic_jax import outside
from relic_jax.camera import actions as camera_actions
from relic_jax.camera import conventions, poses
from relic_jax.errors import InputError

FPS = 16.0
MAX_FPS = 1000.0
NO_SCENE = -1

ORIGIN_DEGREES, ORIGIN_DISTANCE = 0.1, 1e-3  # how far a first pose may lie from the origin
LEAP = 20  # times the usual step: further apart from one frame to the next is another place, not a move
# How far an action may miss its pose, in degrees or units of magnitude, and as a share of the step: far above float32's
# noise, far below a wrong sign.
_STEP_SLACK, _STEP_SHARE = 0.1, 0.05


@dataclasses.dataclass(frozen=True)
class Clip:
    """One record; see the module. Poses are in OpenCV's convention once `from_record` has let them in."""

    video: UInt8[np.ndarray, "T H W 3"]
    rotations: Float[np.ndarray, "T 3 3"]
    positions: Float[np.ndarray, "T 3"]
    actions: Float[np.ndarray, "T 13"]
    unit: float
    caption: str
    seed: int
    start_rotation: Float[np.ndarray, "3 3"]
    start_position: Float[np.ndarray, "3"]
    convention: str = "opencv"
    fps: float = FPS

    @property
    def frames(self) -> int:
        return self.video.shape[0]

    def record(self) -> dict[str, Any]:
        """The fields by name, as `features` of the builder take them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def absolute(self) -> tuple[Float[np.ndarray, "T 3 3"], Float[np.ndarray, "T 3"]]:
        """Poses in the scene, float64: what a renderer needs to show the clip again."""
        start = self.start_rotation.astype(np.float64)
        return self.rotations.astype(np.float64) @ start, self.start_position + self.positions.astype(
            np.float64
        ) @ start

    def window(self, start: int, frames: int) -> "Clip":
        """Some of the frames, with the first of them as the new origin and actions to match."""
        part = slice(start, start + frames)
        rotations = self.rotations[part].astype(np.float64)
        positions = self.positions[part].astype(np.float64)
        made = from_poses(self.video[part], rotations, positions, caption=self.caption, seed=self.seed)
        start = self.start_rotation.astype(np.float64)
        return dataclasses.replace(
            made,
            start_rotation=(rotations[0] @ start).astype(np.float32),
            start_position=(self.start_position + positions[0] @ start).astype(np.float32),
            fps=self.fps,
        )


def from_poses(
    video: UInt8[np.ndarray, "T H W 3"],
    rotations: Float[np.ndarray, "T 3 3"],
    positions: Float[np.ndarray, "T 3"],
    *,
    caption: str,
    seed: int = NO_SCENE,
) -> Clip:
    """A clip from frames and absolute poses (OpenCV, float64): relative poses, and actions by Algorithm 1.

    Raises:
      InputError: a pose is not finite or no rotation (names the frame).
    """
    conventions.check_rotations(rotations)
    outside.array(positions, "positions", ("frame",))
    relative_rotations, relative_positions = poses.relative(rotations, positions)
    actions, unit = camera_actions.actions_from_poses(relative_rotations, relative_positions)
    return Clip(
        video=video,
        rotations=relative_rotations.astype(np.float32),
        positions=relative_positions.astype(np.float32),
        actions=actions.astype(np.float32),
        unit=float(unit),
        caption=caption,
        seed=seed,
        start_rotation=rotations[0].astype(np.float32),
        start_position=positions[0].astype(np.float32),
    )


_SHAPES = {"video": (4, 3), "rotations": (3, 3), "positions": (2, 3), "actions": (2, len(camera_actions.ACTIONS))}
_START_SHAPES = {"start_rotation": (3, 3), "start_position": (3,)}


def from_record(record: Mapping[str, Any], where: str, fps: float | int | None = None) -> Clip:
    """A record as a Clip in OpenCV's convention.

    Args:
      where: what to call the record in an error: the file and the record's number.
      fps: what a model is made for; a clip of another rate is refused. None: any.

    Raises:
      InputError: a field is missing or has another shape, the convention is not named or unknown, a number is not
        finite or out of range, a rotation is none, the first pose is not the origin, or the actions are not the
        path's. One sentence each, with the frame.
    """
    fields = [f.name for f in dataclasses.fields(Clip)]
    if not record.get("convention"):
        raise InputError(
            f"{where}: expected a field 'convention' that names the camera axes of the poses, one of "
            f"{', '.join(conventions.CONVENTIONS)}; none came"
        )
    missing = [name for name in fields if name not in record]
    if missing:
        raise InputError(f"{where}: expected the fields {', '.join(fields)}; {', '.join(missing)} did not come")
    values = {name: record[name] for name in fields}
    _check_shapes(values, where)
    for name in ("caption", "convention"):
        values[name] = values[name].decode() if isinstance(values[name], bytes) else str(values[name])
    try:
        clip = Clip(**_checked(values))
        if fps is not None and abs(clip.fps - fps) > 1e-3:
            raise InputError(f"field 'fps': expected {fps:g}, which the config's video.fps says, got {clip.fps:g}")
        if clip.convention == "opencv":
            check_origin(clip.rotations, clip.positions)
            made = clip
        else:
            rotations, positions = conventions.convert(clip.rotations, clip.positions, clip.convention, "opencv")
            made = dataclasses.replace(from_poses(clip.video, rotations, positions, caption=clip.caption), fps=clip.fps)
        check_path(made.rotations, made.positions, clip.actions, made.unit)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return made


def _check_shapes(values: Mapping[str, Any], where: str) -> None:
    """Fields of frames have one entry a frame, and there is a frame."""
    frames = np.shape(values["video"])[:1]
    for name, (rank, last) in _SHAPES.items():
        shape = np.shape(values[name])
        if len(shape) != rank or shape[-1] != last or shape[:1] != frames or not shape[0]:
            raise InputError(f"{where}: field '{name}' has shape {shape}, expected {rank} axes, {frames} to ({last},)")
    for name, wanted in _START_SHAPES.items():
        if np.shape(values[name]) != wanted:
            raise InputError(f"{where}: field '{name}' has shape {np.shape(values[name])}, expected {wanted}")
    kind = np.asarray(values["video"]).dtype
    if kind != np.uint8:
        raise InputError(f"{where}: field 'video' is of {kind}, expected uint8")


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record with every number finite and in range; the sentence names the field and the frame."""
    return {
        **values,
        "unit": outside.number(values["unit"], "field 'unit'", above=0),
        "fps": outside.number(values["fps"], "field 'fps'", above=0, most=MAX_FPS),
        "seed": _scene(values["seed"]),
        "rotations": _floats(values, "rotations", ("frame",), conventions.check_rotations),
        "positions": _floats(values, "positions", ("frame",)),
        "start_rotation": _floats(values, "start_rotation", (), lambda r: conventions.check_rotations(r[None])),
        "start_position": _floats(values, "start_position", ()),
        "actions": camera_actions.checked(values["actions"], "field 'actions'"),
    }


def _floats(
    values: Mapping[str, Any], name: str, axes: Sequence[str], check: Callable[[Any], None] = lambda _: None
) -> np.ndarray:
    """A field of floats as it came, once it is finite and `check` has nothing against it."""
    outside.array(values[name], f"field '{name}'", axes)
    check(np.asarray(values[name]))
    return np.asarray(values[name])


def _scene(value: Any) -> int:
    number = int(value)
    return number if number == NO_SCENE else outside.seed(number, "field 'seed'")


def check_origin(rotations: Float[np.ndarray, "T 3 3"], positions: Float[np.ndarray, "T 3"]) -> None:
    """Raises InputError unless the first frame is the origin: R = I, P = 0."""
    turn, move = _angle(rotations[0], np.eye(3)), float(np.linalg.norm(positions[0]))
    if turn > ORIGIN_DEGREES or move > ORIGIN_DISTANCE:
        raise InputError(
            f"frame 0: expected the first pose to be the origin (R = I, P = 0), got one turned by {turn:.3g} degrees "
            f"and moved by {move:.3g}"
        )


def check_path(
    rotations: Float[np.ndarray, "T 3 3"],
    positions: Float[np.ndarray, "T 3"],
    actions: Float[np.ndarray, "T 13"],
    unit: float,
) -> None:
    """A path is one that a camera can go, and its actions are the path's: the first static, then step by step.

    Poses and actions reach the model by different doors, so a clip in which they contradict each other (rotations
    camera-to-world for world-to-camera, actions of another clip) trains without an error, on what is wrong.

    Raises:
      InputError: names the first frame whose action doesn't lead to its pose, or that the camera leapt to.
    """
    turned, moved = camera_actions.steps_from_poses(rotations.astype(np.float64), positions.astype(np.float64))
    turns, moves = camera_actions.steps_from_actions(actions.astype(np.float64), unit)
    if np.abs(actions[0, : camera_actions.STATIC]).max() > _STEP_SLACK:
        raise InputError("frame 0: expected its action to be static, nothing comes before it; it moves or turns")
    for frame, leap in enumerate(_leaps(np.linalg.norm(moved, axis=-1)), 1):
        if leap:
            raise InputError(
                f"frame {frame}: the camera leaps by {np.linalg.norm(moved[frame - 1]):.3g}, more than {LEAP} times "
                "its steps before, after and at the middle; expected a path"
            )
    for frame in range(1, len(actions)):
        angle, length = _angle(turned[frame - 1], np.eye(3)), float(np.linalg.norm(moved[frame - 1])) / unit
        off_angle = _angle(turned[frame - 1], turns[frame])
        off_length = float(np.linalg.norm(moved[frame - 1] - moves[frame])) / unit
        if off_angle > _STEP_SLACK + _STEP_SHARE * angle or off_length > _STEP_SLACK + _STEP_SHARE * length:
            raise InputError(
                f"frame {frame}: its action and its pose contradict each other, by {off_angle:.3g} degrees and "
                f"{off_length:.3g} units; expected world-to-camera rotations and actions made of these poses"
            )


def _angle(one: Float[np.ndarray, "3 3"], other: Float[np.ndarray, "3 3"]) -> float:
    """Degrees between two rotations; by their distance, which float32 noise doesn't make large as it does a trace's."""
    return float(np.degrees(2 * np.arcsin(min(1.0, float(np.linalg.norm(one - other)) / np.sqrt(8)))))


def _leaps(lengths: Float[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which steps are no camera's: far longer than both neighbours and than most."""
    moving = lengths[lengths >= camera_actions.STILL_DISTANCE]
    if len(moving) < 4:
        return np.zeros(len(lengths), bool)
    beside = np.maximum(np.concatenate([[0], lengths[:-1]]), np.concatenate([lengths[1:], [0]]))
    return lengths > LEAP * np.maximum(beside, np.median(moving))
