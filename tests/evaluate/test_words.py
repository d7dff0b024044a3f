"""The measure of reading: the truth of either house scores, the other's fails, and a model of random weights runs."""

import dataclasses

import numpy as np
import pytest

from relic_jax.config import RelicConfig
from relic_jax.evaluate import words
from tests.small import SMALLEST, random_bundle

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(scope="module")
def pairs():
    return list(words.pairs(RelicConfig.tiny(), 3, seed=700_000_000))


def test_the_truth_is_right_and_the_others_is_wrong(pairs):
    assert [pair.change for pair in pairs] == ["color", "kind", "room"]
    for pair in pairs:
        assert pair.video.shape == (2, 77, 64, 96, 3) and pair.actions.shape == (77, 13)
        np.testing.assert_array_equal(pair.video[0, 0], pair.video[1, 0])
        assert words.right(pair, pair.video).all()
        assert not words.right(pair, pair.video[::-1]).any()


def test_only_the_place_of_the_difference_counts(pairs):
    for pair in pairs:
        noisy = pair.video.copy()
        noisy[:, :, ~pair.place] = 255 - noisy[:, :, ~pair.place]
        inside = np.zeros_like(pair.place)
        rows, columns = np.indices(pair.place.shape) // 4
        for row, column in {*zip(rows[pair.place], columns[pair.place], strict=True)}:
            inside[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = True
        mixed = np.where(inside[..., None], pair.video, noisy)
        assert words.right(pair, mixed).all()


def test_a_model_that_does_not_read_is_right_once_of_two(pairs):
    by_pair = [(pair, words.right(pair, pair.video[[0, 0]])) for pair in pairs]
    figures = words.accuracy(by_pair)
    assert figures["swap_accuracy"] == 0.5
    assert set(figures) == {"swap_accuracy", *(f"swap_accuracy.{kind}" for kind in ("color", "kind", "room"))}


def test_a_model_makes_both_videos():
    pair = next(words.pairs(SMALLEST, 1, seed=700_000_000))
    made = words.videos(random_bundle(SMALLEST), pair, seed=0)
    assert made.shape == pair.video.shape and made.dtype == np.uint8
    same = dataclasses.replace(pair, sentences=(pair.sentences[0],) * 2)
    again = words.videos(random_bundle(SMALLEST), same, seed=0)
    np.testing.assert_array_equal(again[0], again[1])
    np.testing.assert_array_equal(again[0], made[0])
