"""Numbers from outside: what is finite and in range comes through unchanged, all else is one sentence."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relic_jax import outside
from relic_jax.errors import InputError

ANYTHING = st.one_of(
    st.floats(),
    st.integers(),
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.complex_numbers(),
    st.binary(max_size=2),
)


@given(ANYTHING)
@settings(max_examples=300)
def test_a_number_is_finite_and_in_range_or_refused(value):
    try:
        got = outside.number(value, "x", above=0, most=1e6)
    except InputError as error:
        assert str(error).startswith("x: expected a finite number above 0 and at most 1e+06, got")
    else:
        assert math.isfinite(got) and 0 < got <= 1e6 and got == float(value)


@given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=6))
@settings(max_examples=300)
def test_an_array_is_finite_or_its_first_bad_entry_is_named(rows):
    bad = [(t, i) for t, row in enumerate(rows) for i, value in enumerate(row) if not math.isfinite(value)]
    if not bad:
        np.testing.assert_array_equal(outside.array(rows, "path"), rows)
        return
    frame, entry = bad[0]
    with pytest.raises(InputError, match=f"^path, frame {frame}, {'xy'[entry]}: expected a finite number, got "):
        outside.array(rows, "path", ("frame",), last="xy")


@pytest.mark.parametrize("values", ["abc", [[1], [2, 3]], [1j], {"a": 1}, object()])
def test_what_holds_no_numbers_is_refused(values):
    with pytest.raises(InputError, match="^it: expected numbers"):
        outside.array(values, "it")


def test_an_arrays_range_is_said():
    with pytest.raises(InputError, match=r"^it, entry 1, 0: expected a number in \[0, 1\], got 1.5"):
        outside.array([[0.0, 1.0], [1.5, 0.0]], "it", least=0, most=1)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1, np.uint64(2**63)])
def test_seeds_of_64_bits(seed):
    assert outside.seed(seed) == int(seed)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", None, True, float("nan")])
def test_other_seeds_are_refused(seed):
    with pytest.raises(InputError, match=r"^--seed: expected a whole number from 0 to 2\^64 - 1, got"):
        outside.seed(seed, "--seed")
