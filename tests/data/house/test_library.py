import itertools

import numpy as np
import pytest

from relic_jax.data.house import library
from relic_jax.pixels import lab


def test_the_library_has_what_it_should():
    assert len(library.COLORS) == 16 and len(library.KINDS) == 12 and len(library.MOTIFS) == 8
    assert len(set(library.WALLS)) == len(set(library.FLOORS)) == 12
    assert len(library.CEILINGS) + len(library.SKIES) == 6
    assert {*library.WALLS, *library.FLOORS, *library.CEILINGS} <= set(library.PATTERNS)


def test_colors_are_well_apart():
    nearest = min(itertools.combinations(library.COLORS, 2), key=lambda pair: library.distance(*pair))
    assert library.distance(*nearest) == library.smallest_distance() >= library.MIN_DISTANCE, nearest


@pytest.mark.parametrize("color", library.COLORS)
def test_a_second_color_can_be_told_from_the_first(color):
    for second, least in ((library.mate(color), 20), (library.soft_mate(color), 11)):
        assert ((lab(second) - lab(np.array(library.COLORS[color]))) ** 2).sum() ** 0.5 > least
