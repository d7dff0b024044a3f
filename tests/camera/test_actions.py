"""Algorithm 1 and its inverse: closure, reversal, meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relic_jax.camera import actions as A
from relic_jax.camera import poses
from relic_jax.errors import InputError

paths = st.tuples(
    st.integers(0, 2**32 - 1),  # seed
    st.integers(2, 40),  # frames
    st.sampled_from([0.0, 0.5, 5.0, 45.0]),  # largest turn a frame, degrees
    st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 100.0]),  # largest move a frame, world units
)


def make_path(spec):
    """A general path that starts anywhere; about a third of its steps stand still, turn only or move only."""
    seed, frames, turn, move = spec
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-turn, turn, (3, frames)) * rng.integers(0, 2, frames)
    moves = rng.uniform(-move, move, (frames, 3)) * rng.integers(0, 2, (frames, 1))
    rotations = poses.chain(poses.rotation_from_euler(*angles))
    return rotations, np.cumsum(moves, 0) + rng.normal(size=3)


@given(paths)
def test_poses_to_actions_to_poses_closes(spec):
    path = poses.relative(*make_path(spec))
    actions, unit = A.actions_from_poses(*path)
    assert actions.shape == (spec[1], 13) and actions.min() >= 0
    np.testing.assert_array_equal(actions[0], A.static_actions(1)[0])
    rotations, positions = A.poses_from_actions(actions, unit)
    np.testing.assert_allclose(rotations, path[0], atol=1e-6, rtol=0)
    np.testing.assert_allclose(positions, path[1], atol=1e-6, rtol=0)


@given(paths, st.sampled_from([0.25, 1.0, 7.5]))
def test_actions_to_poses_to_actions_closes(spec, rotation_unit):
    actions, unit = A.actions_from_poses(*make_path(spec), rotation_unit)
    again, unit_again = A.actions_from_poses(*A.poses_from_actions(actions, unit, rotation_unit), rotation_unit)
    assert unit_again == pytest.approx(unit, rel=1e-9)
    np.testing.assert_allclose(again[:, :12], actions[:, :12], atol=1e-6)
    moving = np.abs(actions[:, :12]).max(-1) > 0.01
    np.testing.assert_array_equal(again[moving, 12], 0)


@given(paths)
def test_it_goes_on_from_any_pose(spec):
    rotations, positions = make_path(spec)
    actions, unit = A.actions_from_poses(rotations, positions)
    got = A.poses_from_actions(actions, unit, initial=(rotations[0], positions[0]))
    np.testing.assert_allclose(got[0], rotations, atol=1e-6)
    np.testing.assert_allclose(got[1], positions, atol=1e-6)


@given(paths)
def test_reversed_actions_lead_back(spec):
    rotations, positions = make_path(spec)
    actions, unit = A.actions_from_poses(rotations, positions)
    back = A.reversed_actions(actions, unit)
    got = A.poses_from_actions(back[:-1], unit, initial=(rotations[-1], positions[-1]))
    np.testing.assert_allclose(got[0], rotations[-2::-1], atol=1e-6)
    np.testing.assert_allclose(got[1], positions[-2::-1], atol=1e-6)
    # the same as Algorithm 1 on the re-ordered poses
    recomputed, _ = A.actions_from_poses(*poses.reverse(rotations, positions))
    np.testing.assert_allclose(back[:-1, :12], recomputed[1:, :12], atol=1e-6)


def test_reversal_is_not_a_sign_flip():
    """Forward and right at once: the way back, seen from the turned camera, is not straight backwards."""
    action = np.zeros((1, 13))
    action[0, [A.ACTIONS.index("dolly_in"), A.ACTIONS.index("pan_right")]] = 1.0, 30.0
    back = dict(zip(A.ACTIONS, A.reversed_actions(action, 1.0)[0], strict=True))
    assert back["pan_left"] == pytest.approx(30) and back["dolly_out"] == pytest.approx(np.cos(np.pi / 6))
    assert back["truck_right"] == pytest.approx(np.sin(np.pi / 6))
    assert A.mirrored(action)[0, A.ACTIONS.index("truck_right")] == 0


DIRECTIONS = {
    "dolly_in": (0, 0, 1), "dolly_out": (0, 0, -1), "truck_left": (-1, 0, 0), "truck_right": (1, 0, 0),
    "pedestal_up": (0, -1, 0), "pedestal_down": (0, 1, 0),
}  # fmt: skip
TURNS = {
    "tilt_up": (0, 3, 0), "tilt_down": (0, -3, 0), "pan_left": (-3, 0, 0), "pan_right": (3, 0, 0),
    "roll_cw": (0, 0, 3), "roll_ccw": (0, 0, -3),
}  # fmt: skip


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_translation_moves_along_the_cameras_own_axis(name):
    initial = (poses.rotation_from_euler(50, -20, 10), np.array([1.0, 2.0, 3.0]))
    action = np.zeros((1, 13))
    action[0, A.ACTIONS.index(name)] = 2.0
    rotations, positions = A.poses_from_actions(action, 0.1, initial=initial)
    np.testing.assert_allclose(initial[0] @ (positions[0] - initial[1]), 0.2 * np.array(DIRECTIONS[name]), atol=1e-14)
    np.testing.assert_allclose(rotations[0], initial[0], atol=1e-14)


@pytest.mark.parametrize("name", TURNS)
def test_a_rotation_turns_about_the_cameras_own_axis(name):
    initial = (poses.rotation_from_euler(50, -20, 10), np.array([1.0, 2.0, 3.0]))
    action = np.zeros((1, 13))
    action[0, A.ACTIONS.index(name)] = 1.5
    rotations, positions = A.poses_from_actions(action, 0.1, 2.0, initial=initial)
    np.testing.assert_allclose(rotations[0], poses.rotation_from_euler(*TURNS[name]) @ initial[0], atol=1e-14)
    np.testing.assert_array_equal(positions[0], initial[1])


def test_unit_is_the_mean_non_zero_step():
    positions = np.cumsum([[0, 0, 0], [0, 0, 1], [0, 0, 0], [3, 0, 0], [0, 5e-5, 0]], 0).astype(float)
    actions, unit = A.actions_from_poses(np.tile(np.eye(3), (5, 1, 1)), positions)
    assert unit == 2.0
    np.testing.assert_allclose(actions[[1, 3], [0, 3]], [0.5, 1.5])
    np.testing.assert_array_equal(actions[:, 12], [1, 0, 1, 0, 1])


def test_a_clip_without_translation_has_unit_one():
    turning = poses.rotation_from_euler(np.arange(5.0), 0.0, 0.0)
    actions, unit = A.actions_from_poses(turning, np.zeros((5, 3)))
    assert unit == 1.0
    np.testing.assert_allclose(actions[1:, A.ACTIONS.index("pan_right")], 1)
    np.testing.assert_array_equal(actions[:, 12], [1, 0, 0, 0, 0])


def test_advance_under_jit_batched_and_in_pieces_is_the_whole_path():
    rng = np.random.default_rng(0)
    actions = rng.uniform(0, 2, (3, 32, 13))
    wanted = A.poses_from_actions(actions, 0.1, 2.0)
    step = jax.jit(lambda r, p, a: A.advance(r, p, a, 0.1, 2.0))
    rotation, position = jnp.tile(jnp.eye(3), (3, 1, 1)), jnp.zeros((3, 3))
    for block in range(2):
        rotations, positions = step(rotation, position, jnp.asarray(actions[:, 16 * block : 16 * block + 16]))
        np.testing.assert_allclose(rotations, wanted[0][:, 16 * block : 16 * block + 16], atol=2e-6)
        np.testing.assert_allclose(positions, wanted[1][:, 16 * block : 16 * block + 16], atol=2e-5)
        rotation, position = rotations[:, -1], positions[:, -1]
    assert rotations.dtype == positions.dtype == jnp.float32


def test_a_long_float32_session_keeps_a_rotation():
    step = jax.jit(lambda r, p, a: A.advance(r, p, a, 0.1, 1.0))
    actions = jnp.asarray(np.random.default_rng(1).uniform(0, 3, (16, 13)))
    pose = jnp.eye(3), jnp.zeros(3)
    for _ in range(300):
        rotations, positions = step(*pose, actions)
        pose = rotations[-1], positions[-1]
    assert abs(pose[0] @ pose[0].T - jnp.eye(3)).max() < 3e-6


def test_mirrored_swaps_both_signs_of_every_axis():
    value = dict(zip(A.ACTIONS, range(13), strict=True))
    got = dict(zip(A.ACTIONS, A.mirrored(np.arange(13.0)[None])[0], strict=True))
    opposite = {"in": "out", "left": "right", "up": "down", "cw": "ccw"}
    opposite |= {v: k for k, v in opposite.items()}
    for name in A.ACTIONS[:12]:
        axis, _, sign = name.partition("_")
        assert got[name] == value[f"{axis}_{opposite[sign]}"]
    assert got["static"] == 12


def test_speed_leaves_the_static_flag():
    np.testing.assert_array_equal(A.speed(np.ones((1, 13), np.float32), 2.5), [[2.5] * 12 + [1]])


def test_features_of_a_clip_and_of_a_stream_agree():
    actions = np.random.default_rng(0).uniform(size=(2, 9, 13))
    features = A.action_features(actions)
    assert features.shape == (2, 3, 52)
    np.testing.assert_array_equal(features[:, 0].reshape(2, 4, 13), np.repeat(actions[:, :1], 4, 1))
    np.testing.assert_array_equal(features[:, 1:], poses.group(actions[:, 1:]))
    np.testing.assert_allclose(jax.jit(A.action_features)(jnp.asarray(actions)), features, rtol=1e-6)


@pytest.mark.parametrize(
    ("frame", "name", "value"),
    [(3, "pan_left", np.nan), (0, "dolly_in", np.inf), (5, "static", -1.0), (2, "roll_cw", 1e30)],
)
def test_an_action_that_is_none_is_named_by_frame_and_direction(frame, name, value):
    given = A.static_actions(6).astype(np.float64)
    given[frame, A.ACTIONS.index(name)] = value
    with pytest.raises(InputError, match=rf"^actions, frame {frame}, {name}: expected a number in \[0, 1000\]"):
        A.checked(given)


def test_checked_actions_are_ones_own():
    given = A.static_actions(3)
    checked = A.checked(given)
    given[0] = np.nan
    assert np.isfinite(checked).all() and checked.dtype == np.float32
