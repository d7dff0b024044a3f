"""Brightness, saturation and sharpness where they are known."""

import numpy as np
import pytest

from relic_jax.evaluate import drift


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
