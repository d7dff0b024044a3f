"""Which latents of a clip show what it has shown before."""

import jax.numpy as jnp
import numpy as np

from relic_jax.train import clips

STRIDE = 4


def turning(degrees):
    """A clip whose camera stands still and looks at these angles, one a frame."""
    angle = np.deg2rad(np.asarray(degrees, np.float32))
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rotations = np.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], -1).reshape(-1, 3, 3)
    return {"rotations": rotations, "positions": np.zeros((len(angle), 3), np.float32), "unit": np.float32(0.1)}


def moving(metres, unit=0.1):
    """A clip whose camera looks ahead and stands at these places on a line, one a frame."""
    positions = np.pad(np.asarray(metres, np.float32)[:, None], ((0, 0), (0, 2)))
    rotations = np.broadcast_to(np.eye(3, dtype=np.float32), (len(positions), 3, 3))
    return {"rotations": rotations, "positions": positions, "unit": np.float32(unit)}


def found(clip, horizon=80, first=80):
    batch = {name: jnp.asarray(x)[None] for name, x in clip.items()}
    return np.asarray(clips.revisits(batch, STRIDE, horizon, first))[0]


def test_a_way_back_is_a_revisit_once_its_place_was_left_long_enough_ago():
    out = np.arange(41)
    angles = 2.0 * np.concatenate([out, out[-2::-1]])  # 41 frames out, 40 back: frame 40 + i looks where 40 - i did
    frames = np.arange(0, 81, STRIDE)
    # Frame f looks where 80 - f did, and within 3 degrees of where 79 - f did: the earliest one that counts.
    expected = frames - (79 - frames) >= clips.AGO
    np.testing.assert_array_equal(found(turning(angles)), expected & (frames > 40))


def test_new_places_are_none_whether_turning_or_moving():
    assert not found(turning(2.0 * np.arange(121))).any()
    assert not found(moving(0.1 * np.arange(121))).any()


def test_a_place_is_near_by_the_clips_own_step():
    out = 0.1 * np.arange(41)
    there_and_beside = np.concatenate([out, out[::-1] + 0.2])
    assert not found(moving(there_and_beside[:60])).any()
    assert found(moving(there_and_beside, unit=1.0))[-1]


def test_standing_still_comes_to_count_as_known():
    np.testing.assert_array_equal(found(moving(np.zeros(81))), np.arange(0, 81, STRIDE) >= clips.AGO)


def test_what_memory_has_dropped_is_not_known():
    there_and_elsewhere = np.concatenate([np.zeros(1), np.full(79, 9.0), np.zeros(1)])
    assert found(moving(there_and_elsewhere), horizon=21)[-1]
    assert not found(moving(there_and_elsewhere), horizon=20)[-1]


def test_what_was_first_seen_late_may_have_been_shown_otherwise():
    elsewhere_then_there_twice = np.concatenate([np.full(20, 9.0), np.zeros(21), np.full(20, 5.0), np.zeros(20)])
    assert found(moving(elsewhere_then_there_twice), first=6)[-1]  # the sixth latent ends with frame 20
    assert not found(moving(elsewhere_then_there_twice), first=5)[-1]
