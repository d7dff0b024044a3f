import dataclasses

import numpy as np
import pytest

from relic_jax.camera import actions, conventions, poses
from relic_jax.data import clip as clips
from relic_jax.errors import InputError

FRAMES = 17


@pytest.fixture
def clip() -> clips.Clip:
    rng = np.random.default_rng(0)
    held = np.zeros((FRAMES, 13))
    held[1:, [0, 2, 8]] = rng.uniform(0.5, 1.5, (FRAMES - 1, 3))
    start = np.asarray(poses.rotation_from_euler(40.0, 5.0, 2.0)), np.array([1.0, -1.5, 2.0])
    rotations, positions = actions.poses_from_actions(held, 0.1, 2.0, start)
    video = rng.integers(0, 256, (FRAMES, 8, 12, 3), np.uint8)
    return clips.from_poses(video, rotations, positions, caption="a room", seed=7)


def test_a_clip_starts_at_its_own_origin(clip):
    np.testing.assert_allclose(clip.rotations[0], np.eye(3), atol=1e-15)
    np.testing.assert_array_equal(clip.positions[0], 0)
    assert clip.actions[0, actions.STATIC] == 1 and clip.actions[0].sum() == 1
    rotations, positions = actions.poses_from_actions(clip.actions.astype(np.float64), clip.unit)
    np.testing.assert_allclose(rotations, clip.rotations, atol=2e-6)
    np.testing.assert_allclose(positions, clip.positions, atol=2e-6)


def test_a_window_is_a_clip(clip):
    part = clip.window(5, 9)
    np.testing.assert_array_equal(part.video, clip.video[5:14])
    np.testing.assert_allclose(part.rotations[0], np.eye(3), atol=1e-6)
    assert part.actions[0, actions.STATIC] == 1 and not part.positions[0].any()
    np.testing.assert_allclose(
        part.actions[1:] * [*[part.unit] * 6, *[1] * 7], clip.actions[6:14] * [*[clip.unit] * 6, *[1] * 7], atol=1e-4
    )
    absolute = clip.positions.astype(np.float64) @ clip.start_rotation + clip.start_position
    ours = part.positions.astype(np.float64) @ part.start_rotation + part.start_position
    np.testing.assert_allclose(ours, absolute[5:14], atol=1e-6)


def test_record_and_back(clip):
    again = clips.from_record(clip.record(), "x")
    for field in dataclasses.fields(clip):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(clip, field.name))
    stored = clip.record() | {"caption": b"a room", "convention": b"opencv"}
    assert clips.from_record(stored, "x").caption == "a room"


def test_other_conventions_are_converted(clip):
    rotations, positions = conventions.convert(
        clip.rotations.astype(np.float64), clip.positions.astype(np.float64), "opencv", "unreal"
    )
    stored = clip.record() | {"rotations": rotations, "positions": positions, "convention": b"unreal"}
    again = clips.from_record(stored, "x")
    assert again.convention == "opencv"
    np.testing.assert_allclose(again.rotations, clip.rotations, atol=1e-6)
    np.testing.assert_allclose(again.positions, clip.positions, atol=1e-6)
    np.testing.assert_allclose(again.actions, clip.actions, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": None}, "clips/a, record 3: expected a field 'convention' .* opencv, unreal"),
        ({"convention": b""}, "field 'convention'"),
        ({"convention": "blender"}, "record 3: .*'blender'"),
        ({"caption": None}, "caption did not come"),
        ({"actions": np.zeros((FRAMES, 12))}, r"field 'actions' has shape \(17, 12\)"),
        ({"positions": np.zeros((FRAMES + 1, 3))}, r"field 'positions' has shape \(18, 3\)"),
        ({"rotations": np.ones((FRAMES, 3, 3), np.float32)}, "record 3: rotation of frame 0"),
    ],
)
def test_bad_records_are_refused_in_one_sentence(clip, change, message):
    record = {name: value for name, value in (clip.record() | change).items() if value is not None}
    with pytest.raises(InputError, match=message) as error:
        clips.from_record(record, "clips/a, record 3")
    assert "\n" not in str(error.value)
