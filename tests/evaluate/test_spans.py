"""Spans of a long session beside the truth."""

import numpy as np
import pytest

from relic_jax.evaluate import bands, spans
from tests.small import SMALLEST, random_bundle

pytestmark = pytest.mark.usefixtures("compile_once")


def test_what_changes_half_way_is_seen_in_the_second_half_alone():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (2, 41, 8, 12, 3))
    truth = list(coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint8))
    made = [video.copy() for video in truth]
    for video in made:
        video[21:] = video[21:].mean((1, 2), keepdims=True)
    vae = random_bundle(SMALLEST).params["vae"]
    got = spans.compare(vae, SMALLEST.vae, truth, made, fps=4)
    assert set(got) == {"frechet", *(f"band_power.{name}" for name in bands.NAMES)}
    first, second = got["frechet"]
    assert first == pytest.approx(0, abs=1e-10) and second > 1e-8
    assert got["band_power.high"][0] == pytest.approx(1) and got["band_power.high"][1] < 0.1
