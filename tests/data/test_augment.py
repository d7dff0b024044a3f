"""Augmented clips against the renderer's geometry and the action algebra."""

from types import SimpleNamespace

import numpy as np
import pytest

from relic_jax.camera import actions as camera_actions
from relic_jax.data import augment, builder
from tests import reference


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


@pytest.mark.parametrize(
    ("pivot", "order"),
    [
        # The specification's frames count from 1: 1..t*, then t*-1 down to 2 t* - T, here with T = 17.
        (8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (13, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 12, 11, 10]),
        (16, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
    ],
)
def test_palindrome_turns_back_at_its_pivot_in_as_many_frames(clip, pivot, order):
    made = augment.palindrome(clip, pivot)
    assert (made.video == clip.video[order]).all()
    np.testing.assert_allclose(made.rotations, clip.rotations[order], atol=1e-6)
    np.testing.assert_allclose(made.positions, clip.positions[order], atol=1e-6)
    assert made.seed == clip.seed and (made.start_position == clip.start_position).all()
    out = clip.actions[1 : pivot + 1].astype(np.float64) * np.array([clip.unit / made.unit] * 6 + [1] * 7)
    np.testing.assert_allclose(made.actions[1 : pivot + 1], out, atol=1e-3)
    back = camera_actions.reversed_actions(out[2 * pivot - 16 :], made.unit)
    np.testing.assert_allclose(made.actions[pivot + 1 :, :12], back[: 16 - pivot, :12], atol=1e-3)


def _moves_and_turns(clip):
    actions = clip.actions[1:9]
    return actions[:, :6].sum() > 4 and actions[:, 6:12].sum() > 8


def test_a_palindromes_actions_lead_home_and_a_change_of_sign_would_not():
    walked = next(c for c in (builder.world_clip(seed, 17, 32, 48) for seed in range(40)) if _moves_and_turns(c))
    made = augment.palindrome(walked, 8)
    model = SimpleNamespace(translation_unit=made.unit, rotation_unit=1.0)

    def away(actions):
        return np.linalg.norm(reference.walk(model, np.eye(3), np.zeros(3), actions)[-1][1])

    actions = made.actions[1:].astype(np.float64)
    assert away(actions[:8]) > 0.2 and away(actions) < 1e-4
    opposite = [i ^ 1 for i in range(12)] + [12]  # each direction's stands beside it
    assert away(np.concatenate([actions[:8], actions[7::-1][:, opposite]])) > 1e-3


def test_pivots_are_uniform_in_the_second_half(clip):
    rng = np.random.default_rng(0)
    pivots = [augment.draw_pivot(17, rng) for _ in range(4000)]
    assert np.bincount(pivots).nonzero()[0].tolist() == list(range(8, 16))
    assert np.bincount(pivots)[8:].min() > 400
    with pytest.raises(ValueError, match="pivot 7 doesn't lie in the second half of 17 frames"):
        augment.palindrome(clip, 7)
