"""Unreal, OpenGL and OpenCV: round trips, and the same camera in each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relic_jax.camera import conventions, poses
from relic_jax.errors import InputError


def path(seed, frames=8):
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-1, 1, (3, frames)) * np.array([[179], [89], [179]])
    return poses.rotation_from_euler(*angles), rng.uniform(-100, 100, (frames, 3))


def unreal_rotation(pitch, yaw, roll):
    """FRotationMatrix of Unreal's public headers: its rows are the camera's axes in the world."""
    sp, sy, sr = np.sin(np.radians([pitch, yaw, roll]))
    cp, cy, cr = np.cos(np.radians([pitch, yaw, roll]))
    return np.array(
        [
            [cp * cy, cp * sy, sp],
            [sr * sp * cy - cr * sy, sr * sp * sy + cr * cy, -sr * cp],
            [-(cr * sp * cy + sr * sy), cy * sr - cr * sp * sy, cr * cp],
        ]
    )


@given(st.integers(0, 2**32 - 1), *[st.sampled_from(sorted(conventions.CONVENTIONS))] * 2)
def test_round_trip(seed, one, other):
    rotations, positions = path(seed)
    there = conventions.convert(rotations, positions, one, other)
    back = conventions.convert(*there, other, one)
    np.testing.assert_allclose(back[0], rotations, atol=1e-9, rtol=0)
    np.testing.assert_allclose(back[1], positions, atol=1e-9, rtol=0)


@given(st.integers(0, 2**32 - 1))
def test_unreal_rotators_round_trip(seed):
    rotations, positions = path(seed)
    back = conventions.from_unreal(*conventions.to_unreal(rotations, positions))
    np.testing.assert_allclose(back[0], rotations, atol=1e-9, rtol=0)
    np.testing.assert_allclose(back[1], positions, atol=1e-9, rtol=0)


@given(st.floats(-89, 89), st.floats(-179, 179), st.floats(-179, 179))
def test_a_rotator_is_the_rotation_matrix_unreal_makes_of_it(pitch, yaw, roll):
    location = np.array([[100.0, 200.0, 300.0]])
    matrix = unreal_rotation(pitch, yaw, roll)[None]
    wanted = conventions.convert(matrix, location, "unreal", "opencv")
    got = conventions.from_unreal(np.array([[pitch, yaw, roll]]), location)
    np.testing.assert_allclose(got[0], wanted[0], atol=1e-12)
    np.testing.assert_allclose(got[1], wanted[1], atol=1e-12)
    np.testing.assert_allclose(got[1], [[2.0, -3.0, 1.0]])  # right, down, forward, in metres


def test_a_point_is_seen_at_the_same_place_in_every_convention():
    """One metre ahead, 20 cm right and 10 cm up of an Unreal camera."""
    rotation, location = unreal_rotation(20, 70, -15)[None], np.array([[50.0, -30.0, 10.0]])
    point = location + np.array([100.0, 20.0, 10.0]) @ rotation[0]
    for name, wanted in (("opencv", (0.2, -0.1, 1.0)), ("opengl", (0.2, 0.1, -1.0))):
        r, p = conventions.convert(rotation, location, "unreal", name)
        _, q = conventions.convert(rotation, point, "unreal", name)
        np.testing.assert_allclose(r[0] @ (q - p)[0], wanted, atol=1e-12)


@pytest.mark.parametrize("name, said", [(None, "none was given"), ("", "none was given"), ("colmap", "'colmap'")])
def test_missing_and_unknown_conventions_are_refused(name, said):
    with pytest.raises(InputError, match=f"opencv, unreal, opengl, .*{said}"):
        conventions.convert(*path(0), name, "opencv")


@pytest.mark.parametrize("bad", [np.diag([1.0, 1.0, -1.0]), 1.1 * np.eye(3), np.full((3, 3), np.nan)])
def test_a_matrix_that_is_no_rotation_is_refused(bad):
    rotations, positions = path(0)
    rotations[3] = bad
    with pytest.raises(InputError, match="rotation of frame 3"):
        conventions.convert(rotations, positions, "unreal", "opencv")
