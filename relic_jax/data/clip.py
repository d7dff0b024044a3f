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
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import conventions, poses
from relic_jax.errors import InputError

FPS = 16.0
NO_SCENE = -1


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
    """A clip from frames and absolute poses (OpenCV, float64): relative poses, and actions by Algorithm 1."""
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


def from_record(record: Mapping[str, Any], where: str) -> Clip:
    """A record as a Clip in OpenCV's convention.

    Args:
      where: what to call the record in an error: the file and the record's number.

    Raises:
      InputError: a field is missing or has another shape, the convention is not named or unknown, or a rotation is
        none. One sentence each.
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
    frames = np.shape(values["video"])[:1]
    for name, (rank, last) in _SHAPES.items():
        shape = np.shape(values[name])
        if len(shape) != rank or shape[-1] != last or shape[:1] != frames:
            raise InputError(f"{where}: field '{name}' has shape {shape}, expected {rank} axes, {frames} to ({last},)")
    for name in ("caption", "convention"):
        values[name] = values[name].decode() if isinstance(values[name], bytes) else str(values[name])
    for name in ("unit", "fps"):
        values[name] = float(values[name])
    values["seed"] = int(values["seed"])
    clip = Clip(**values)
    try:
        if clip.convention == "opencv":
            conventions.check_rotations(clip.rotations)
            return clip
        rotations, positions = conventions.convert(clip.rotations, clip.positions, clip.convention, "opencv")
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return dataclasses.replace(from_poses(clip.video, rotations, positions, caption=clip.caption), fps=clip.fps)
