"""Things that are kept: in their place, in their colour."""

import numpy as np

from relic_jax.evaluate import things


def scene():
    """A red and a blue thing before a green wall, and where they are."""
    masks = np.zeros((2, 32, 48), bool)
    masks[0, 10:20, 5:15] = masks[1, 12:24, 30:38] = True
    frame = np.full((32, 48, 3), (20, 120, 40), np.uint8)
    frame[masks[0]], frame[masks[1]] = (210, 30, 30), (30, 60, 220)
    return np.repeat(frame[None], 4, axis=0), masks


def test_the_truth_keeps_all_and_noise_changes_nothing():
    truth, masks = scene()
    noisy = np.clip(truth + np.random.default_rng(0).integers(-30, 30, truth.shape), 0, 255).astype(np.uint8)
    assert things.kept(truth[None], truth[None], [masks]).tolist() == [1.0, 1.0]
    assert things.kept(truth[None], noisy[None], [masks]).tolist() == [1.0, 1.0]


def test_what_is_gone_or_of_another_colour_or_elsewhere_is_not_kept():
    truth, masks = scene()
    gone = truth.copy()
    gone[:, masks[0]] = (20, 120, 40)
    assert things.kept(truth[None], gone[None], [masks]).tolist() == [0.0, 1.0]
    other = truth.copy()
    other[:, masks[1]] = (220, 200, 30)
    assert things.kept(truth[None], other[None], [masks]).tolist() == [1.0, 0.0]
    moved = np.roll(truth, 16, axis=2)
    assert things.kept(truth[None], moved[None], [masks]).tolist() == [0.0, 0.0]


def test_around_is_a_ring():
    _, masks = scene()
    ring = things.around(masks[0])
    assert not (ring & masks[0]).any() and ring[7:23, 2:18].sum() == ring.sum() == 16 * 16 - 100
    assert things.around(np.ones((4, 4), bool)).sum() == 0
