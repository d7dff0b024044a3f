import itertools

import pytest

from relic_jax.data.house import library


def test_the_library_has_what_it_should():
    assert len(library.COLORS) == 16 and len(library.KINDS) == 12 and len(library.MOTIFS) == 8
    assert len(set(library.WALLS)) == len(set(library.FLOORS)) == 12
    assert len(library.CEILINGS) + len(library.SKIES) == 6
    assert {*library.WALLS, *library.FLOORS, *library.CEILINGS} <= set(library.PATTERNS)


@pytest.mark.parametrize(
    ("color", "expected"),  # published values of CIE Lab under D65
    [
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
    ],
)
def test_lab(color, expected):
    assert library.lab(color) == pytest.approx(expected, abs=0.1)


def test_colors_are_well_apart():
    nearest = min(itertools.combinations(library.COLORS, 2), key=lambda pair: library.distance(*pair))
    assert library.distance(*nearest) == library.smallest_distance() >= library.MIN_DISTANCE, nearest


@pytest.mark.parametrize("color", library.COLORS)
def test_a_second_color_can_be_told_from_the_first(color):
    for second, least in ((library.mate(color), 20), (library.soft_mate(color), 11)):
        assert ((library.lab(second) - library.lab(library.COLORS[color])) ** 2).sum() ** 0.5 > least
