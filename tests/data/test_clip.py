import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relic_jax.camera import actions, conventions, poses
from relic_jax.data import clip as clips
from relic_jax.errors import InputError

FRAMES = 17


def made() -> clips.Clip:
    rng = np.random.default_rng(0)
    held = np.zeros((FRAMES, 13))
    held[1:, [0, 2, 8]] = rng.uniform(0.5, 1.5, (FRAMES - 1, 3))
    start = np.asarray(poses.rotation_from_euler(40.0, 5.0, 2.0)), np.array([1.0, -1.5, 2.0])
    rotations, positions = actions.poses_from_actions(held, 0.1, 2.0, start)
    video = rng.integers(0, 256, (FRAMES, 8, 12, 3), np.uint8)
    return clips.from_poses(video, rotations, positions, caption="a room", seed=7)


@pytest.fixture
def clip() -> clips.Clip:
    return made()


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


def with_entry(values, at, value):
    values = np.array(values)
    values[at] = value
    return values


def turned_over(clip):
    """The same clip with rotations camera-to-world, as many tools write them."""
    return {"rotations": np.swapaxes(clip.rotations, -1, -2).copy()}


def teleported(clip):
    positions = np.array(clip.positions)
    positions[9:] += 50
    again = clips.from_poses(clip.video, clip.rotations, positions, caption="")
    return {"positions": again.positions, "actions": again.actions, "unit": again.unit}


FAULTS = {
    "a NaN among the positions": (
        lambda c: {"positions": with_entry(c.positions, (5, 1), np.nan)},
        "field 'positions', frame 5, entry 1: expected a finite number, got nan",
    ),
    "infinite positions": (
        lambda c: {"positions": with_entry(c.positions, (2, 0), np.inf)}, "field 'positions', frame 2"
    ),
    "a NaN in a rotation": (
        lambda c: {"rotations": with_entry(c.rotations, (4, 0, 0), np.nan)}, "field 'rotations', frame 4"
    ),
    "a NaN action": (
        lambda c: {"actions": with_entry(c.actions, (7, 8), np.nan)}, "field 'actions', frame 7, pan_left"
    ),
    "a negative action": (
        lambda c: {"actions": with_entry(c.actions, (7, 8), -1)}, "field 'actions', frame 7, pan_left"
    ),
    "rotations camera-to-world": (turned_over, "frame 1: its action and its pose contradict each other"),
    "actions of another clip": (
        lambda c: {"actions": actions.mirrored(c.actions)}, "frame 1: its action and its pose contradict each other"
    ),
    "actions of another frame": (
        lambda c: {"actions": np.roll(c.actions, 1, axis=0)}, "frame 0: expected its action to be static"
    ),
    "a teleport": (teleported, "frame 9: the camera leaps by 86"),
    "a first pose that is not the origin": (
        lambda c: {"positions": c.positions + np.float32(1)}, "frame 0: expected the first pose to be the origin"
    ),
    "fps 0": (lambda c: {"fps": 0.0}, "field 'fps': expected a finite number above 0 and at most 1000, got 0.0"),
    "fps NaN": (lambda c: {"fps": np.float32(np.nan)}, "field 'fps'"),
    "unit 0": (lambda c: {"unit": 0.0}, "field 'unit': expected a finite number above 0, got 0.0"),
    "unit NaN": (lambda c: {"unit": np.nan}, "field 'unit'"),
    "another unit": (lambda c: {"unit": 10 * c.unit}, "frame 1: its action and its pose contradict each other"),
    "a start that is no rotation": (lambda c: {"start_rotation": np.zeros((3, 3), np.float32)}, "rotation of frame 0"),
    "a start that is NaN": (lambda c: {"start_position": np.full(3, np.nan, np.float32)}, "field 'start_position'"),
    "a negative scene": (lambda c: {"seed": -2}, "field 'seed'"),
    "video of floats": (lambda c: {"video": c.video / 255}, "field 'video' is of float64, expected uint8"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_record_that_would_spoil_training_is_refused_by_record_frame_and_reason(clip, fault):
    change, said = FAULTS[fault]
    with pytest.raises(InputError) as error:
        clips.from_record(clip.record() | change(clip), "clips/a, record 3")
    assert str(error.value).startswith("clips/a, record 3: ") and said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_clip_of_another_rate_than_the_models_is_refused(clip):
    record = clip.record() | {"fps": 30.0}
    assert clips.from_record(record, "x").fps == 30
    with pytest.raises(InputError, match="x: field 'fps': expected 16, which the config's video.fps says, got 30"):
        clips.from_record(record, "x", fps=16)


def test_paths_that_are_no_clip_are_refused_at_import(clip):
    rotations, positions = clip.rotations.astype(float), clip.positions.astype(float)
    with pytest.raises(InputError, match="positions, frame 3"):
        clips.from_poses(clip.video, rotations, with_entry(positions, 3, np.nan), caption="")
    with pytest.raises(InputError, match="rotation of frame 2"):
        clips.from_poses(clip.video, with_entry(rotations, (2, 0, 0), np.nan), positions, caption="")


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -5.0, 0.0, 3.0]))
def test_whatever_number_is_changed_a_record_is_refused_or_consistent(number, value):
    """No traceback, and nothing that is not finite is let in."""
    rng = np.random.default_rng(number)
    record = made().record()
    name = ("rotations", "positions", "actions", "unit", "fps", "start_position", "start_rotation")[number % 7]
    changed = np.array(record[name], np.float32)
    changed[tuple(rng.integers(0, n) for n in changed.shape)] = value
    try:
        got = clips.from_record(record | {name: changed}, "x")
    except InputError:
        return
    for field in (got.rotations, got.positions, got.actions, got.unit, got.fps, got.start_position):
        assert np.isfinite(field).all()
