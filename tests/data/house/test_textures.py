import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.data.house import library, textures

SIDE = 200


def amount(pattern: str) -> np.ndarray:
    """A pattern on a surface of 4 x 4 m from the floor up, in samples of 2 cm."""
    v, u = (a.ravel() for a in np.meshgrid(np.linspace(4, 0, SIDE), np.linspace(-2, 2, SIDE), indexing="ij"))
    place = jnp.asarray(u, jnp.float32), jnp.asarray(v, jnp.float32)
    inside = place[0] / 2, place[1] / 2 - 1
    soft = jnp.full(u.shape, 0.02), jnp.full(u.shape, 0.01)
    index = jnp.full(u.shape, library.PATTERNS.index(pattern), jnp.int32)
    return np.asarray(textures.second_color(index, place, inside, soft)).reshape(SIDE, SIDE)


@pytest.mark.parametrize("pattern", library.PATTERNS)
def test_a_pattern_has_two_colours_and_few_edges(pattern):
    seen = amount(pattern)
    assert seen.min() >= 0 and seen.max() <= 1
    if pattern == "plain":
        assert not seen.any()
        return
    assert 0.03 < seen.mean() < 0.97
    assert ((seen > 0.05) & (seen < 0.95)).mean() < 0.2, "crisp: most samples have one colour"
    edges = (np.abs(np.diff(seen > 0.5, axis=1)).sum() + np.abs(np.diff(seen > 0.5, axis=0)).sum()) / SIDE
    assert edges < 25, "large shapes: few edges on a line of 4 m"


def test_patterns_differ():
    shown = {name: amount(name) for name in library.PATTERNS}
    for one in library.PATTERNS:
        for other in library.PATTERNS[: library.PATTERNS.index(one)]:
            assert np.abs(shown[one] - shown[other]).mean() > 0.02, (one, other)


def test_stripes_stand_and_bands_lie():
    assert np.ptp(amount("striped"), axis=0).max() == 0
    assert np.ptp(amount("banded"), axis=1).max() == 0
