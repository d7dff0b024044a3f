"""Brightness, saturation and sharpness where they are known, and a session of random weights."""

import dataclasses

import numpy as np
import pytest

from relic_jax.config import DiTConfig, MemoryConfig, RelicConfig, VAEConfig
from relic_jax.evaluate import drift
from tests.small import random_bundle

pytestmark = pytest.mark.usefixtures("compile_once")

CFG = dataclasses.replace(
    RelicConfig.tiny(),
    dit=DiTConfig(dim=32, ffn_dim=32, heads=2, layers=1, text_len=32, text_dim=64, cond_dim=8, freq_dim=16),
    vae=dataclasses.replace(VAEConfig.tiny(), base_dim=4),
    memory=MemoryConfig(horizon=16),
)


def test_measures_of_flat_and_striped_frames():
    red = np.zeros((2, 4, 6, 3), np.uint8)
    red[..., 0] = 200
    assert drift.brightness(red) == pytest.approx([0.299 * 200] * 2)
    assert drift.saturation(red) == pytest.approx([200, 200])
    assert drift.sharpness(red) == pytest.approx([0, 0])
    stripes = np.zeros((1, 4, 6, 3), np.uint8)
    stripes[:, :, ::2] = 100  # grey columns: every step across is 100, none down
    assert drift.saturation(stripes) == pytest.approx([0])
    assert drift.sharpness(stripes) == pytest.approx([50])


def test_curves_are_second_by_second_without_the_picture():
    video = np.zeros((1 + 3 * 16, 4, 6, 3), np.uint8)
    video[0] = 255
    video[17:33] = 100
    got = drift.curves([video, np.zeros_like(video)], fps=16)
    assert got["brightness"] == pytest.approx([0, 50, 0])


def test_change_is_against_the_first_seconds():
    curve = np.repeat([10.0, 11.0, 9.5], 5)
    assert drift.change(np.append(curve, 99.0)) == pytest.approx([0, 0.1, -0.05])


def test_a_walk_and_what_a_session_makes_of_it():
    clip = drift.walk(CFG, 900_000_000, seconds=2)
    assert clip.frames == 33
    made = drift.stream(random_bundle(CFG), clip, seed=0)
    assert made.shape == clip.video.shape and made.dtype == np.uint8
