import numpy as np
import pytest

from relic_jax.camera import poses
from relic_jax.data import builder, walks
from relic_jax.data.house import geometry, scene
from relic_jax.data.house.truth import seen, truth, visible

pytestmark = pytest.mark.usefixtures("compile_once")


def test_visible_says_what_share_and_where():
    ids = np.zeros((2, 4, 8), np.int32)
    ids[0, 1:3, 2:4] = geometry.THING + 1
    shown = visible(ids, 3)
    np.testing.assert_allclose(shown.share, [[0, 4 / 32, 0], [0, 0, 0]])
    assert shown.row[0, 1] == pytest.approx(0.5) and shown.column[0, 1] == pytest.approx(3 / 8)
    assert np.isnan(shown.row[1]).all()


def test_a_clip_is_enough_to_know_what_is_where():
    clip = builder.world_clip(4, 5, 32, 48, world="house")
    house = scene.build(clip.seed)
    path = walks.sample_path(house, 5, np.random.default_rng([4, 1]))
    rotations, positions = clip.absolute()
    np.testing.assert_allclose(rotations, path.rotations, atol=1e-6)
    np.testing.assert_allclose(positions, path.positions, atol=1e-5)
    ids, depth = truth(clip.seed, rotations, positions, height=32, width=48)
    assert ids.shape == depth.shape == (5, 32, 48)
    same, _ = truth(house, path.rotations, path.positions, height=32, width=48)
    assert (ids != same).mean() < 1e-3


def test_seen_follows_a_pan():
    """Turned by ten degrees, all but a strip on one side was in the first picture; turned round, nothing."""
    house = scene.build(1)
    rotation, position = walks.start_pose(house, np.random.default_rng(1))
    turned = [np.asarray(poses.rotation_from_euler(yaw, 0.0, 0.0)) @ rotation for yaw in (0.0, 10.0, 180.0)]
    rotations, positions = np.stack(turned), np.tile(position, (3, 1))
    shown = seen(truth(house, rotations, positions)[1], rotations, positions)
    assert shown[0].mean() > 0.99 and not shown[2].any()
    focal = 48 / np.tan(np.deg2rad(40))
    edge = 48 + focal * np.tan(np.deg2rad(30))  # the first picture's right edge in the second
    middle = shown[1][28:36]
    assert middle[:, : int(edge) - 2].mean() > 0.97 and not middle[:, int(edge) + 2 :].any()


def test_what_a_thing_hid_was_not_seen():
    """A step aside uncovers wall behind a thing: those pixels agree with the first frame in no id."""
    house = scene.build(7)
    path = walks.sample_path(house, 30, np.random.default_rng([7, 1]))
    ids, depth = truth(house, path.rotations, path.positions)
    shown = seen(depth, path.rotations, path.positions)
    first = set(np.unique(ids[0]))
    for t in range(30):
        new = ~np.isin(ids[t], list(first))
        assert (shown[t] & new).mean() < 0.02
