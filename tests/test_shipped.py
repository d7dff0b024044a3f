"""The model in the repository: that it fits its config and its place, and does what its card says, on a few scenes."""

import runpy
from pathlib import Path

import numpy as np

import relic_jax
from relic_jax.config import RelicConfig, from_config_dict
from relic_jax.evaluate import world
from relic_jax.models import bundle

FOLDER = Path(relic_jax.__file__).parent / "assets" / "tiny"


def test_it_fits_its_config_and_the_repository():
    cfg = from_config_dict(RelicConfig, runpy.run_path("configs/tiny.py")["get_config"]())
    assert bundle.load(FOLDER, cfg).config == cfg
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) <= 20e6
    card = (FOLDER / "README.md").read_text()
    for picture in FOLDER.glob("*.png"):
        assert f"({picture.name})" in card


def test_it_follows_actions_in_rooms_it_has_never_seen():
    cfg = from_config_dict(RelicConfig, runpy.run_path("configs/tiny.py")["get_config"]())
    scenes = world.join([part for _, part in world.scenes(cfg, 6, seed=990_000_000)])
    made = world.videos(bundle.load(FOLDER, cfg), scenes, seed=0)
    by_scene = world.scores(scenes.video, made)
    figures = world.summary(by_scene)
    assert figures["vae_psnr_db"] > 27
    assert figures["right_closer_fraction"] >= 0.8
    assert figures["psnr_gain_over_still_db"] > 1
    assert np.all(np.isfinite(by_scene["right_no_pose_db"]))
