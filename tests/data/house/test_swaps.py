import numpy as np
import pytest

from relic_jax.data.house import render, swaps
from relic_jax.data.house.truth import truth

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.mark.parametrize("change", swaps.CHANGES)
def test_two_houses_share_the_picture_and_differ_where_the_sentences_do(change):
    found = [pair for seed in range(4) if (pair := swaps.swap(seed, 81, change)) is not None]
    assert len(found) >= 3
    for pair in found:
        one, other = pair.sentences
        assert one.split()[0] == other.split()[0] and one != other
        words = [(a, b) for a, b in zip(one.split(), other.split(), strict=False) if a != b]
        assert words and (len(words) == 1 or change == "kind" or "an" in dict(words))
        rotations, positions = (p.astype(np.float32) for p in (pair.path.rotations, pair.path.positions))
        assert rotations.shape == (81, 3, 3)
        ends = [(rotations[i : i + 1], positions[i : i + 1]) for i in (0, 80)]  # one frame each: one program
        first, last = ([np.asarray(render.render(h.geometry, *at)) for h in pair.houses] for at in ends)
        np.testing.assert_array_equal(*first)
        before, after = (truth(pair.houses[0], *at)[0] == pair.what for at in ends)
        assert after.mean() > 0.01 and not before.any()
        differ = np.abs(last[0].astype(int) - last[1]).max(-1) > 20
        assert differ[after].mean() > 0.3


def test_a_swap_is_a_function_of_its_seed():
    one, same = swaps.swap(1, 65), swaps.swap(1, 65)
    assert one is not None and same is not None and one.sentences == same.sentences
    np.testing.assert_array_equal(one.path.rotations, same.path.rotations)
