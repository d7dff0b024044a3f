"""Balanced action sampling: the weights, and the order that follows them."""

import numpy as np
import pytest

from relic_jax.camera.actions import ACTIONS, STATIC, static_actions
from relic_jax.data import balance

PAN, ROLL = ACTIONS.index("pan_left"), ACTIONS.index("roll_cw")


def clip(**shares):
    """Ten steps after the first frame, so many of them with each action."""
    actions = static_actions(11)
    actions[1:, STATIC] = 0
    place = 1
    for name, count in shares.items():
        actions[place : place + count, ACTIONS.index(name)] = 1.5
        place += count
    return actions


def test_histogram_counts_steps_and_not_the_first_frame():
    quiet = static_actions(11)
    quiet[1:] = 0.01  # below what counts
    shares = balance.histogram([clip(pan_left=6, roll_cw=2), quiet])
    assert shares.shape == (2, 13)
    assert shares[0, PAN] == pytest.approx(0.75) and shares[0, ROLL] == pytest.approx(0.25)
    assert shares[0].sum() == pytest.approx(1) and not shares[1].any()


def test_weights_give_every_action_the_same_share():
    clips = [clip(pan_left=10)] * 60 + [clip(dolly_in=10)] * 20 + [clip(dolly_in=2, roll_cw=8)] * 15
    shares = balance.histogram([*clips, clip(pan_left=9)])
    weights = balance.weights(shares)
    assert weights.sum() == pytest.approx(1)
    present = (weights @ shares)[shares.any(axis=0)]
    np.testing.assert_allclose(present, 1 / 3, atol=1e-5)
    assert weights[0] == pytest.approx(weights[-1]), "clips with the same actions are as likely"


def test_no_clip_comes_too_often():
    shares = balance.histogram([clip(pan_left=10)] * 999 + [clip(roll_cw=10)])
    assert balance.weights(shares)[-1] * 1000 == pytest.approx(balance.MOST, rel=0.02)


def test_balanced_clips_are_drawn_alike():
    np.testing.assert_allclose(balance.weights(balance.histogram([clip(pan_left=10)] * 7)), 1 / 7)
    np.testing.assert_allclose(balance.weights(np.zeros((3, 13))), 1 / 3)


def test_draws_follow_the_weights_in_every_epoch():
    weights = np.array([0.5, 0.25, 0.15, 0.1])
    drawn = balance.Drawn(range(4), weights, seed=3)
    epochs = np.array([np.bincount([drawn[4 * epoch + i] for i in range(4)], minlength=4) for epoch in range(400)])
    assert (epochs >= np.floor(4 * weights)).all() and (epochs <= np.ceil(4 * weights)).all()
    np.testing.assert_allclose(epochs.mean(axis=0), 4 * weights, atol=0.08)


def test_what_stands_at_an_index_follows_from_seed_and_index():
    def made(seed, order):
        drawn = balance.Drawn(range(20), np.arange(20) / 190, seed)
        return {i: drawn[i] for i in order}

    forward = made(1, range(60))
    assert forward == made(1, reversed(range(60))) != made(2, range(60))
    assert [forward[i] for i in range(20)] != [forward[20 + i] for i in range(20)]
