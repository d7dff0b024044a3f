"""Openings in a batch beside whole clips: each comes as it would alone, and a resumed run reads on where it was."""

import numpy as np
import pytest

from relic_jax.data import loader
from relic_jax.data.part import Part
from relic_jax.train import openings
from tests.train import encoded


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openings")
    encoded.write(folder, encoded.model(), 6)
    return folder / "clips"


def pair(data, **options):
    long, short = (
        {"batch": batch, "seed": seed, "latents": latents} for batch, seed, latents in ((1, 0, 6), (4, 1, 2))
    )
    return [loader.latent_batches(data, **sizes, **options) for sizes in (long, short)]


def test_both_come_as_alone(data):
    clips, beginnings = pair(data)
    beside = openings.Beside(*pair(data))
    for _ in range(3):
        split = openings.split(next(beside))
        for got, alone in zip(split, (next(clips), next(beginnings)), strict=True):
            assert got.keys() == alone.keys()
            for name in got:
                np.testing.assert_array_equal(got[name], alone[name])
    assert split[0]["latents"].shape[:2] == (1, 6) and split[1]["latents"].shape[:2] == (4, 2)


def test_a_batch_without_openings():
    clips = {"latents": np.zeros(3)}
    assert openings.split(clips) == (clips, {})


def test_goes_on_where_it_was(data):
    first, second = (openings.Beside(*pair(data)) for _ in range(2))
    next(first), next(first)
    second.set_state(first.get_state())
    expected, got = next(first), next(second)
    assert expected.keys() == got.keys()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


def test_parts_make_up_the_batches(data):
    long, short = ({"batch": 2, "seed": seed, "latents": latents} for seed, latents in ((0, 6), (1, 2)))

    def beside(**part):
        return openings.Beside(*(loader.latent_batches(data, **sizes, **part) for sizes in (long, short)))

    whole, parts = next(beside()), [next(beside(part=Part(i, 2))) for i in range(2)]
    for name, rows in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), rows)
