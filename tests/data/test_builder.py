import dataclasses
import subprocess
import sys

import numpy as np

from relic_jax.camera import actions
from relic_jax.data import builder, world
from relic_jax.data.clip import from_record
from relic_jax.data.loader import Clips

RECIPE = builder.Recipe(frames=9, height=16, width=24, seed=50)


def test_a_seed_is_a_clip():
    clip, again, other = RECIPE.clip(1), builder.world_clip(51, 9, 16, 24), RECIPE.clip(2)
    np.testing.assert_array_equal(clip.video, again.video)
    np.testing.assert_array_equal(clip.actions, again.actions)
    assert clip.caption == again.caption and clip.seed == 51 and clip.convention == "opencv"
    assert not np.array_equal(clip.video, other.video)
    rotations, positions = actions.poses_from_actions(clip.actions.astype(np.float64), clip.unit)
    np.testing.assert_allclose(rotations, clip.rotations, atol=2e-6)
    np.testing.assert_allclose(positions, clip.positions, atol=2e-6)
    truth = world.render_clip(
        clip.seed, clip.start_rotation, clip.start_position, clip.rotations, clip.positions, height=16, width=24
    )
    assert np.abs(truth.astype(int) - clip.video).max() <= 1


def test_a_lead_is_left_out_of_the_path():
    """A clip with a lead is that of the longer path, begun so many frames later."""
    made, longer = builder.world_clip(51, 9, 16, 24, lead=6), builder.world_clip(51, 15, 16, 24)
    wanted = longer.window(6, 9)
    assert np.abs(made.video.astype(int) - wanted.video).max() <= 1
    assert not np.array_equal(made.video[0], longer.video[0])
    for name in ("rotations", "positions", "actions", "start_rotation", "start_position"):
        np.testing.assert_allclose(getattr(made, name), getattr(wanted, name), atol=2e-6)
    assert "lead" not in RECIPE.made_from  # splits made before there was one go on
    assert dataclasses.replace(RECIPE, lead=6).made_from["lead"] == 6


def test_the_tfds_builder_writes_the_same_clips(tmp_path):
    config = builder.WorldConfig(name="test", clips=3, recipe=RECIPE)
    made = builder.RelicWorld(data_dir=tmp_path, config=config, file_format="array_record")
    made.download_and_prepare()
    source = made.as_data_source("train")
    clips = {int(record["seed"]): from_record(record, "test") for record in source}
    assert sorted(clips) == [50, 51, 52]  # TFDS shuffles
    np.testing.assert_array_equal(clips[52].video, RECIPE.clip(2).video)
    assert len(Clips(made.data_dir)) == 3


def test_tensorflow_is_not_needed():
    program = "import sys; from relic_jax.data import builder, loader, latents; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
