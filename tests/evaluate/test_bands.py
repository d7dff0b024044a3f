"""The bands of a picture's spectrum."""

import numpy as np

from relic_jax.evaluate import bands


def waves(*periods):
    """A frame of waves of so many pixels, one after the other added up."""
    x = np.arange(96)[None] * np.ones((64, 1))
    luma = 128 + sum(30 * np.sin(2 * np.pi * x / period) for period in periods)
    return np.repeat(luma[None, ..., None], 3, -1).astype(np.uint8)


def test_each_wave_lies_in_its_band():
    for period, band in ((32, 0), (10, 1), (3, 2)):
        power = bands.power(waves(period))
        assert power.argmax() == band and power[band] > 0.95 * power.sum()


def test_shares_tell_what_is_smeared_and_what_is_added():
    truth, smeared, noisy = waves(32, 10, 3), waves(32, 10), waves(32, 10, 3, 4, 5)
    same = bands.shares([truth], [truth])
    assert same == {"low": 1.0, "middle": 1.0, "high": 1.0}
    assert bands.shares([smeared], [truth])["high"] < 0.05
    assert abs(bands.shares([smeared], [truth])["low"] - 1) < 0.05
    assert bands.shares([noisy], [truth])["high"] > 2


def test_brightness_and_length_of_a_video_change_nothing():
    one = waves(32, 10, 3)
    long = np.repeat(np.clip(one.astype(int) + 20, 0, 255).astype(np.uint8), 70, axis=0)
    for share in bands.shares([long], [one]).values():
        assert abs(share - 1) < 0.02
