import numpy as np
import pytest

from relic_jax.camera import actions, poses
from relic_jax.camera.actions import ACTIONS
from relic_jax.data import scene, walks

UPRIGHT = np.eye(3)


def keys(frames: int, **magnitudes: float) -> np.ndarray:
    held = np.zeros((frames, len(ACTIONS)))
    for name, magnitude in magnitudes.items():
        held[:, ACTIONS.index(name)] = magnitude
    return held


@pytest.fixture(scope="module")
def empty() -> scene.Scene:
    """A room of 10 x 3 x 10 m with one box of 2 m a side in front of its middle."""
    built, _ = scene.build_scene(0)
    centers, halves = np.tile([0.0, 50.0, 0.0], (20, 1)), np.full((20, 3), 1e-3)
    centers[0], halves[0] = (0.0, -1.0, 3.0), 1.0
    return scene.Scene(
        room=np.array([5.0, 3.0, 5.0], np.float32),
        centers=centers.astype(np.float32),
        halves=halves.astype(np.float32),
        turns=np.tile(np.float32([1, 0]), (20, 1)),
        boxes=np.array(1, np.int32),
        surfaces=built.surfaces,
        sky=built.sky,
    )


def test_free_space_knows_the_room_and_turned_boxes(empty):
    assert walks.free(empty, np.array([0.0, -1.5, 0.0]))
    assert not walks.free(empty, np.array([4.7, -1.5, 0.0]))
    assert not walks.free(empty, np.array([0.0, -2.7, 0.0]))
    assert not walks.free(empty, np.array([0.0, -1.0, 1.7]))
    assert walks.free(empty, np.array([1.3, -1.0, 1.7])), "past the corner, 0.42 m away"
    half = np.sqrt(0.5)
    turned = scene.Scene(**{**vars(empty), "turns": np.tile(np.float32([half, half]), (20, 1))})
    assert not walks.free(turned, np.array([0.0, -1.0, 1.3])), "the box's corner now points here"


def test_walk_follows_the_actions_where_it_can(empty):
    asked = keys(12, truck_right=0.7, pan_left=1.3, tilt_up=0.4)
    path, made = walks.walk(empty, UPRIGHT, np.array([0.0, -1.5, -2.0]), asked)
    rotations, positions = actions.poses_from_actions(
        asked, walks.TRANSLATION_UNIT, walks.ROTATION_UNIT, (UPRIGHT, np.array([0.0, -1.5, -2.0]))
    )
    assert made.all()
    np.testing.assert_allclose(path.rotations, rotations, atol=1e-12)
    np.testing.assert_allclose(path.positions, positions, atol=1e-12)


def test_walk_stops_at_a_box_and_goes_on_with_the_free_key(empty):
    start = np.array([0.0, -1.5, 1.0])
    path, made = walks.walk(empty, UPRIGHT, start, keys(20, dolly_in=1.0))
    assert 1.5 < path.positions[-1, 2] <= 2.0 - walks.MARGIN and made[0] and not made[-1]
    path, made = walks.walk(empty, UPRIGHT, start, keys(10, dolly_in=1.0, truck_left=1.0))
    np.testing.assert_allclose(path.positions[-1], [-1.0, -1.5, path.positions[-1, 2]], atol=1e-9)
    assert path.positions[-1, 2] <= 2.0 and not made.all()


def test_walk_keeps_the_camera_upright(empty):
    path, made = walks.walk(empty, UPRIGHT, np.array([0.0, -1.5, -2.0]), keys(40, tilt_up=1.0))
    elevation = np.rad2deg(np.arcsin(-path.rotations[:, 2, 1]))
    assert elevation.max() <= walks.MAX_ELEVATION and elevation[-1] > 20 and not made[-1]


@pytest.mark.parametrize("seed", range(5))
def test_paths_keep_their_distance_and_their_heads_up(seed):
    built, _ = scene.build_scene(seed)
    path = walks.sample_path(built, 157, np.random.default_rng(seed))
    assert path.positions.shape == (157, 3)
    np.testing.assert_allclose(
        path.rotations @ path.rotations.swapaxes(1, 2), np.tile(np.eye(3), (157, 1, 1)), atol=1e-9
    )
    assert np.rad2deg(np.arcsin(np.abs(path.rotations[:, 2, 1]))).max() <= walks.MAX_ELEVATION + 1e-6
    for position in path.positions:
        assert walks.free(built, position)
    np.testing.assert_allclose(path.rotations[0, 2, 1], 0, atol=1e-12)
    steps = np.linalg.norm(np.diff(path.positions, axis=0), axis=1)
    assert steps.max() <= walks.TRANSLATION_UNIT * walks.SPEEDS[1] * np.sqrt(3) + 1e-9


def test_a_path_is_a_function_of_its_seed():
    built, _ = scene.build_scene(1)
    one, same, other = (walks.sample_path(built, 41, np.random.default_rng(s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.positions, same.positions)
    assert not np.array_equal(one.rotations, other.rotations)


def test_out_and_back_ends_where_it_began():
    built, _ = scene.build_scene(4)
    rng = np.random.default_rng(0)
    pose = walks.start_pose(built, rng)
    path = walks.out_and_back(built, pose, 120, rng)
    np.testing.assert_array_equal(path.rotations[-1], pose[0])
    np.testing.assert_array_equal(path.positions[-1], pose[1])
    out = 1 + int(np.argmax(np.linalg.norm(path.positions - pose[1], axis=1)))
    assert 2 <= out <= 80 and len(path.positions) >= 22


def test_clips_move_and_use_every_action():
    used, moving = np.zeros(13), 0
    clips = 30
    for seed in range(100, 100 + clips):
        built, _ = scene.build_scene(seed)
        path = walks.sample_path(built, 81, np.random.default_rng([seed, 1]))
        made, _ = actions.actions_from_poses(*poses.relative(path.rotations, path.positions))
        used += (made > 1e-3).mean(0) / clips
        moving += made[:, actions.STATIC].mean() < 0.4
    assert moving >= 0.9 * clips
    assert (used > 0).all(), dict(zip(ACTIONS, used.round(3), strict=True))
    assert (used[:12:2] + used[1:12:2] > [0.3, 0.3, 0.05, 0.05, 0.3, 0.005]).all(), "pedestal, tilt and roll are rarer"
    assert used[actions.STATIC] < 0.2
