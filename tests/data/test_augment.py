"""Augmented clips against the renderer's geometry and the action algebra."""

import numpy as np
import pytest

from relic_jax.camera import actions as camera_actions
from relic_jax.data import augment, builder


@pytest.fixture(scope="module")
def clip():
    return builder.world_clip(7, 17, 32, 48)


def test_backwards_is_the_reversed_path_with_recomputed_actions(clip):
    made = augment.backwards(clip)
    assert (made.video == clip.video[::-1]).all()
    np.testing.assert_allclose(made.rotations[0], np.eye(3), atol=1e-6)
    expected = camera_actions.reversed_actions(clip.actions[1:].astype(np.float64), clip.unit)
    np.testing.assert_allclose(made.actions[1:, :12], expected[:, :12], atol=1e-3)
    assert made.unit == pytest.approx(clip.unit, rel=1e-4)


def test_twice_is_the_clip_again(clip):
    for name in ("backwards", "mirrored"):
        again = augment.variant(augment.variant(clip, name), name)
        assert (again.video == clip.video).all()
        np.testing.assert_allclose(again.rotations, clip.rotations, atol=1e-6)
        np.testing.assert_allclose(again.positions, clip.positions, atol=1e-5)


def test_mirrored_exchanges_the_sideways_actions(clip):
    made = augment.mirrored(clip)
    assert (made.video[:, :, 0] == clip.video[:, :, -1]).all()
    name = camera_actions.ACTIONS.index
    order = list(range(13))
    for a, b in (("truck_left", "truck_right"), ("pan_left", "pan_right"), ("roll_cw", "roll_ccw")):
        order[name(a)], order[name(b)] = name(b), name(a)
    np.testing.assert_allclose(made.actions, clip.actions[:, order], atol=1e-3)
