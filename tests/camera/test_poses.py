"""What each turn and move does to the picture, and the algebra of rotations and paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relic_jax.camera import poses

ANGLES = st.floats(-179.0, 179.0)
PITCHES = st.floats(-85.0, 85.0)


def seen(rotation, position, point):
    """Picture coordinates (x right, y down) of a world point through a camera of focal length 1."""
    x, y, z = rotation @ (np.asarray(point, float) - position)
    return np.array([x / z, y / z])


AHEAD = [0.0, 0.0, 5.0]


@pytest.mark.parametrize(
    "angles, moved",
    [((10, 0, 0), (-1, 0)), ((-10, 0, 0), (1, 0)), ((0, 10, 0), (0, 1)), ((0, -10, 0), (0, -1))],
    ids=["pan right: left", "pan left: right", "tilt up: down", "tilt down: up"],
)
def test_the_point_ahead_moves_against_the_turn(angles, moved):
    offset = seen(poses.rotation_from_euler(*angles), np.zeros(3), AHEAD)
    np.testing.assert_allclose(offset, np.tan(np.radians(10)) * np.array(moved), atol=1e-12)


def test_clockwise_roll_turns_the_picture_counter_clockwise():
    up = seen(poses.rotation_from_euler(0, 0, 10), np.zeros(3), [0, -1, 1])
    np.testing.assert_allclose(up, [-np.sin(np.radians(10)), -np.cos(np.radians(10))], atol=1e-12)


def test_euler_angles_are_intrinsic_yaw_then_pitch_then_roll():
    """Turning about the camera's own axes is multiplying from the left."""
    yaw, pitch, roll = (poses.rotation_from_euler(*a) for a in ((30, 0, 0), (0, 20, 0), (0, 0, 10)))
    np.testing.assert_allclose(poses.rotation_from_euler(30, 20, 10), roll @ pitch @ yaw, atol=1e-15)


@given(ANGLES, PITCHES, ANGLES)
def test_euler_round_trip(yaw, pitch, roll):
    rotation = poses.rotation_from_euler(yaw, pitch, roll)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(rotation) > 0
    np.testing.assert_allclose(poses.euler_from_rotation(rotation), (yaw, pitch, roll), atol=1e-9)


def test_float32_jax_agrees_with_float64_numpy():
    angles = np.random.default_rng(0).uniform(-80, 80, (3, 50))
    wanted = poses.rotation_from_euler(*angles)
    got = jax.jit(poses.rotation_from_euler)(*jnp.asarray(angles, jnp.float32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_allclose(jax.jit(poses.euler_from_rotation)(got), angles, atol=1e-4)


def test_orthonormalise_finds_the_nearest_rotation():
    noise = np.random.default_rng(1)
    rotation = poses.rotation_from_euler(40, 20, -70)
    noisy = rotation + noise.uniform(-0.02, 0.02, (3, 3))
    u, _, vt = np.linalg.svd(noisy)
    np.testing.assert_allclose(poses.orthonormalise(noisy), u @ vt, atol=1e-12)
    np.testing.assert_allclose(poses.orthonormalise(rotation), rotation, atol=1e-15)


@pytest.mark.parametrize("frames", [1, 2, 3, 16, 37])
def test_chain_is_the_cumulative_product(frames):
    steps = poses.rotation_from_euler(*np.random.default_rng(2).uniform(-60, 60, (3, 2, frames)))
    wanted = steps.copy()
    for t in range(1, frames):
        wanted[:, t] = steps[:, t] @ wanted[:, t - 1]
    np.testing.assert_allclose(poses.chain(steps), wanted, atol=1e-13)


def path(seed, frames=9):
    rng = np.random.default_rng(seed)
    return poses.rotation_from_euler(*rng.uniform(-60, 60, (3, frames))), rng.normal(size=(frames, 3))


def test_relative_keeps_what_every_camera_sees():
    rotations, positions = path(3)
    point = np.array([0.3, -0.2, 4.0])
    new_rotations, new_positions = poses.relative(rotations, positions)
    np.testing.assert_allclose(new_rotations[0], np.eye(3), atol=1e-15)
    np.testing.assert_allclose(new_positions[0], 0, atol=1e-15)
    new_point = rotations[0] @ (point - positions[0])
    for old_r, old_p, new_r, new_p in zip(rotations, positions, new_rotations, new_positions, strict=True):
        np.testing.assert_allclose(new_r @ (new_point - new_p), old_r @ (point - old_p), atol=1e-13)


def test_reversing_twice_is_the_relative_path():
    rotations, positions = path(4)
    for got, wanted in zip(
        poses.reverse(*poses.reverse(rotations, positions)), poses.relative(rotations, positions), strict=True
    ):
        np.testing.assert_allclose(got, wanted, atol=1e-13)


def test_pose_features_are_padded_on_the_left_and_grouped_by_four():
    rotations, positions = (a[None] for a in path(5))
    features = poses.pose_features(rotations, positions)
    assert features.shape == (1, 3, 48)
    first = np.concatenate([rotations[0, 0].ravel(), positions[0, 0] / 10])
    np.testing.assert_array_equal(features[0, 0].reshape(4, 12), np.tile(first, (4, 1)))
    np.testing.assert_array_equal(features[0, 2, -12:-3], rotations[0, 8].ravel())
    np.testing.assert_array_equal(features[0, 1, 9:12], positions[0, 1] / 10)


def test_group_refuses_frames_that_do_not_fill_a_latent():
    with pytest.raises(ValueError, match="7 frames"):
        poses.group(np.zeros((1, 7, 13)))
