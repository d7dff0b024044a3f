"""The arithmetic of the action-following evaluation, and the whole of it on a model of random weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.evaluate import world
from tests.small import SMALLEST, random_bundle

pytestmark = pytest.mark.usefixtures("compile_once")


def test_summary_counts_only_clips_that_move():
    by_scene = {f"{v}_db": np.array([20.0, 30.0, 10.0]) for v in world.VARIANTS}
    by_scene |= {f"{v}_later_db": np.array([21.0, 31.0, 14.0]) for v in world.VARIANTS}
    by_scene |= {
        "still_db": np.array([15.0, 26.0, 12.0]),
        "still_later_db": np.array([14.0, 25.0, 11.0]),
        "vae_db": np.array([30.0, 31.0, 32.0]),
        "mirrored_db": np.array([14.0, 40.0, 16.0]),
    }
    got = world.summary(by_scene)
    assert (got["clips"], got["scenes"]) == (2, 3)
    assert got["right_closer_fraction"] == 0.5
    assert got["right_closer_fraction_no_pose"] == 0.0
    assert got["psnr_db"] == 15.0 and got["psnr_gain_over_still_db"] == 5.0 and got["vae_psnr_db"] == 31.0


def test_scores_are_of_the_frames_after_the_picture():
    truth = np.zeros((1, 45, 8, 8, 3), np.uint8)
    made = truth.copy()
    made[:, 16:33] = 200
    made[:, 33:] = 7  # beyond what is measured
    got = world.scores(truth, {"right": made + np.uint8(1)})
    assert got["right_later_db"][0] < got["right_db"][0]
    assert np.isinf(got["still_db"][0])


def test_truth_and_all_variants_of_held_out_scenes():
    scenes = world.join([part for _, part in world.scenes(SMALLEST, 2, seed=900_000_000)])
    assert scenes.video.shape == (2, 45, 32, 48, 3) and scenes.actions.shape == (2, 45, 13)
    made = world.videos(random_bundle(SMALLEST), scenes, seed=0)
    assert set(made) == {"vae", *world.VARIANTS}
    assert all(video.shape == scenes.video.shape and video.dtype == np.uint8 for video in made.values())
    assert (made["right"] != made["mirrored"]).any()
    figures = world.summary(world.scores(scenes.video, made))
    assert figures["scenes"] == 2 and 0 <= figures["right_closer_fraction"] <= 1


def test_what_the_picture_shows_is_measured_alone():
    truth = np.full((2, 45, 8, 8, 3), 100, np.uint8)
    made, seen = truth.copy(), np.zeros((2, 33, 8, 8), bool)
    seen[0, :, :4] = True  # of the second scene the picture shows nothing
    made[:, :17, :4] = 110
    made[:, 17:, :4] = 120
    made[:, :, 4:] = 255  # what isn't seen
    got = world.seen_psnr(truth, made, seen)
    assert got == pytest.approx({"1s": 10 * np.log10(255**2 / 100), "2s": 10 * np.log10(255**2 / 400)}, rel=1e-5)
    assert np.isnan(world.seen_psnr(truth, made, np.zeros_like(seen))["1s"])


def test_houses_know_what_their_pictures_show():
    scenes = world.join([part for _, part in world.scenes(SMALLEST, 2, seed=900_000_000, world="house")])
    assert scenes.seen is not None and scenes.seen.shape == (2, 33, 32, 48)
    assert scenes.seen[:, 0].mean() > 0.99  # the picture shows itself
    still = np.broadcast_to(scenes.video[:, :1], scenes.video.shape)
    assert world.seen_psnr(scenes.video, still, scenes.seen)["1s"] < 40
    assert next(iter(world.scenes(SMALLEST, 1, seed=900_000_000)))[1].seen is None


def test_poses_are_withheld_in_the_variants_that_say_so():
    """And given in the others: a sampler that shows its conditions."""
    scenes = world.join([part for _, part in world.scenes(SMALLEST, 1, seed=900_000_000)])
    asked = []

    def sampler(params, cfg, picture, given, key):
        asked.append(float(given.pose_weight[0]))
        return jnp.repeat(picture[:, None], given.actions.shape[1], axis=1)

    world.videos(random_bundle(SMALLEST), scenes, 0, sampler)
    assert dict(zip(world.VARIANTS, asked, strict=True)) == {
        "right": 1.0, "mirrored": 1.0, "right_no_pose": 0.0, "mirrored_no_pose": 0.0
    }  # fmt: skip
