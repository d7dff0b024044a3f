"""Ways out and back, and the views that are compared."""

import numpy as np
import pytest

from relic_jax.config import MemoryConfig
from relic_jax.data import world
from relic_jax.evaluate import revisit, things
from tests.small import SMALLEST

TURN, END = revisit.OUT_FRAMES, 2 * revisit.OUT_FRAMES


@pytest.mark.parametrize("way", revisit.WAYS)
def test_a_way_back_is_the_way_out_reversed_and_leaves_the_first_view(way):
    scene, _ = world.build_scene(900_000_000)
    path = revisit.out_and_back(scene, way, np.random.default_rng(0))
    assert len(path.rotations) == len(path.positions) == END + 1
    np.testing.assert_array_equal(path.rotations, path.rotations[::-1])
    np.testing.assert_array_equal(path.positions, path.positions[::-1])
    trace = np.trace(path.rotations[TURN] @ path.rotations[0].T)
    turned = np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    moved = np.linalg.norm(path.positions[TURN] - path.positions[0])
    assert turned > 80 or moved > 3  # degrees, metres: the picture's field of view is 80 degrees


def test_views_are_where_their_names_say():
    far, midway, returned = (revisit.VIEWS[view] for view in ("far", "midway", "returned"))
    assert TURN in range(far.start, far.stop) and END == returned.stop - 1
    assert {v.stop - v.start for v in revisit.VIEWS.values()} == {4}
    assert abs((midway.start + midway.stop - 1) / 2 - 1.5 * TURN) <= 0.5
    # Beyond what the window holds at full resolution, latents of four frames.
    assert returned.start > 4 * MemoryConfig().window


def test_scores_look_at_their_view_alone():
    truth = np.random.default_rng(0).integers(0, 255, (2, END + 1, 16, 16, 3)).astype(np.uint8)
    made = truth.copy()
    made[1, revisit.VIEWS["far"]] = 0
    got = revisit.scores(truth, made)
    assert np.isinf(got["psnr_db.returned"]).all() and np.isinf(got["psnr_db.midway"]).all()
    assert got["psnr_db.far"][0] == np.inf and got["psnr_db.far"][1] < 10
    np.testing.assert_allclose(got["ssim.returned"], 1, rtol=1e-5)
    assert got["ssim.far"][1] < 0.1


def test_the_interval_holds_the_mean_and_narrows():
    values = np.random.default_rng(0).normal(20, 3, 400)
    few, many = revisit.interval(values[:25]), revisit.interval(values)
    assert many[0] < values.mean() < many[1]
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])
    np.testing.assert_allclose(many[1] - many[0], 2 * 1.96 * 3 / 20, rtol=0.15)


def test_scenes_come_back_to_the_view_they_began_with():
    scenes = revisit.join(list(revisit.scenes(SMALLEST, 2, 900_000_000, ("pan", "truck"))))
    assert scenes.ways == ["pan", "truck"]
    assert scenes.video.shape == (2, 141, 32, 48, 3) and scenes.actions.shape == (2, 141, 13)
    np.testing.assert_array_equal(scenes.video[:, 0], scenes.video[:, END])
    assert (scenes.video[:, TURN].astype(int) - scenes.video[:, 0]).std(axis=(1, 2, 3)).min() > 10


def test_houses_say_where_their_things_are_and_the_truth_keeps_them():
    scenes = revisit.join(list(revisit.scenes(SMALLEST, 3, 900_000_000, ("pan",), world="house")))
    assert any(len(masks) for masks in scenes.things) and all(m.shape[1:] == (32, 48) for m in scenes.things)
    returned = scenes.video[:, revisit.VIEWS["returned"]]
    assert things.kept(returned, returned, scenes.things).mean() > 0.9
    assert revisit.recognised(scenes.video, scenes.video).all()
    assert not revisit.recognised(scenes.video, np.roll(scenes.video, 1, axis=0)).any()
