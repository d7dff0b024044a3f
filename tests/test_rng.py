"""Random keys by name and number: another for everything, the same each time, and made in one place only."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import relic_jax
from relic_jax import rng
from relic_jax.errors import InputError

KEY = jax.random.key(42)
PACKAGE = Path(relic_jax.__file__).parent


def bits(*keys):
    """What keys are, a row each."""
    return [tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys]


def test_every_name_and_step_has_a_key_of_its_own():
    names = ["rollout", "critic", "noise", "pose_drop", ""]
    keys = [rng.streams(KEY, step)[name] for step in range(20) for name in names]
    keys += [rng.streams(KEY)[name] for name in names] + [rng.streams(jax.random.key(1))[name] for name in names]
    assert len(set(bits(KEY, *keys))) == 1 + len(keys)


def test_the_same_name_and_step_is_the_same_key_in_every_call_and_program():
    expected = bits(*(rng.streams(KEY, step)["rollout"] for step in range(4)))
    assert expected == bits(*(rng.streams(jax.random.key(42), step)["rollout"] for step in range(4)))

    def of(step):
        return rng.streams(KEY, step)["rollout"]

    assert expected == bits(*(jax.jit(of)(step) for step in range(4)))
    assert expected == bits(*jax.vmap(of)(jnp.arange(4)))
    assert expected == bits(*jax.lax.map(of, jnp.arange(4)))


def test_the_key_of_a_name_is_what_it_always_was():
    """A run that goes on must draw what it would have drawn: these are the bits of the first version."""
    assert bits(rng.streams(KEY, 7)["rollout"]) == [(3873350794, 2539591426)]


def test_numbers_go_in_one_by_one():
    grid = [rng.numbered(KEY, block, index) for block in range(8) for index in range(8)]
    assert len(set(bits(KEY, *grid))) == 65
    assert bits(rng.numbered(KEY, 3, 5)) == bits(rng.numbered(rng.numbered(KEY, 3), 5))
    assert bits(rng.numbered(KEY)) == bits(KEY)
    inside = jax.jit(jax.vmap(lambda block, index: rng.numbered(KEY, block, index)))
    rows, columns = np.indices((8, 8)).reshape(2, -1)
    assert bits(*inside(rows, columns)) == bits(*grid)


def test_a_name_is_never_a_small_number():
    verbs, nouns = ["add", "drop", "encode", "noise", "pick", "roll", "sample", "score", "shift", "start"], range(100)
    names = [f"{verb}_{noun}" for verb in verbs for noun in nouns]
    streams = rng.streams(KEY)
    named = bits(*(streams[name] for name in names))
    numbered = bits(*jax.vmap(lambda number: rng.numbered(KEY, number))(jnp.arange(1000)))
    assert len(set(named + numbered)) == len(names) + 1000


def test_each_sample_has_a_key_of_its_own():
    keys = rng.each(KEY, 16)
    assert keys.shape == (16,) and len(set(bits(KEY, *keys))) == 17


def folds(path):
    """Whether a file makes keys of keys and numbers itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr == "fold_in":
            return True
        if isinstance(node, ast.ImportFrom) and any(alias.name == "fold_in" for alias in node.names):
            return True
    return False


def test_keys_are_made_here_alone():
    made = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if folds(path)}
    assert made == {"rng.py"}


def test_all_64_bits_of_a_seed_count():
    seeds = [0, 1, 5, 2**31, 2**32 - 1, *(high * 2**32 + low for high in (1, 2, 2**32 - 1) for low in (0, 5))]
    assert len(set(bits(*map(rng.from_seed, seeds)))) == len(seeds)
    small = [0, 7, 2**31, 2**32 - 1]
    assert bits(*map(rng.from_seed, small)) == bits(*map(jax.random.key, small))  # what these always were


def test_a_high_half_is_no_blocks_number():
    assert bits(rng.from_seed(3 * 2**32 + 7)) != bits(rng.numbered(jax.random.key(7), 3))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_beyond_64_bits_is_refused(seed):
    with pytest.raises(InputError, match="seed: expected a whole number from 0"):
        rng.from_seed(seed)
