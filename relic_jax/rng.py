"""Random keys by name and number: the only place where one key is made from another.

JAX's keys have no memory: `fold_in(k, 0)` and `split(k)[0]` are the same key, so two places that each derive theirs by
a number or by a place in a split may draw the same bits without knowing it. Here a key is asked for by what it is for,
and a name is never a small number. Source of the idea: kauldron's random streams.
"""

from __future__ import annotations

import dataclasses
import zlib

import jax
import numpy as np
from jaxtyping import Array, Int, Key, PRNGKeyArray

from relic_jax import outside


def from_seed(seed: int) -> PRNGKeyArray:
    """The key of a seed of up to 64 bits; below 2^32 it is `jax.random.key`'s.

    JAX in 32 bits drops the high half of a seed without a word, so here that half is folded in.

    Raises:
      InputError: it is negative or has more than 64 bits.
    """
    high, low = divmod(outside.seed(seed), 2**32)
    key = jax.random.key(low)
    return numbered(streams(key)["seed"], np.uint32(high)) if high else key


@dataclasses.dataclass(frozen=True)
class Streams:
    """Keys of one step, one for each name: `streams(key, step)["rollout"]`."""

    key: PRNGKeyArray

    def __getitem__(self, name: str) -> PRNGKeyArray:
        return jax.random.fold_in(self.key, zlib.crc32(name.encode()))


def streams(key: PRNGKeyArray, step: int | Int[Array, ""] | None = None) -> Streams:
    """The streams of a run's key; with `step`, those of that step alone."""
    return Streams(key if step is None else jax.random.fold_in(key, step))


def numbered(key: PRNGKeyArray, *numbers: int | np.uint32 | Int[Array, ""]) -> PRNGKeyArray:
    """The key of what has these numbers: a block of a session, then an evaluation of that block.

    A key that is numbered is used for nothing else.
    """
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def each(key: PRNGKeyArray, count: int) -> Key[Array, "{count}"]:
    """A key for each of `count` samples, [count]. A key that is split is used for nothing else."""
    return jax.random.split(key, count)
