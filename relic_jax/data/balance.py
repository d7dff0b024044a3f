"""Clips drawn so that the 13 actions are balanced (SPEC 8): a weight each, and an order that follows the weights.

A camera dollies far more often than it rolls, and a model learns to answer to what it has seen. The weights are
the least change from uniform under which every action fills the same share of the frames drawn (generalised
iterative scaling, Darroch and Ratcliff 1972), as far as no clip comes too often.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

MOST = 8.0  # times as often as without balance: a few clips with a rare action must not be learnt by heart
ACTIVE = 0.1  # magnitude from which an action counts: below it is what a turn leaves on other axes
_ROUNDS = 200
_EPOCHS = 2**20  # more than anyone trains; Grain wants to know a length


def histogram(clips: Iterable[Float[np.ndarray, "_ 13"]]) -> Float[np.ndarray, "clips 13"]:
    """The share that each action has in what happens in each clip; a row sums to 1, or is 0 where nothing does.

    Args:
      clips: actions of each clip; the first of each is static by definition and does not count.
    """
    active = np.stack([(actions[1:] >= ACTIVE).mean(axis=0, dtype=np.float64) for actions in clips])
    return active / np.maximum(active.sum(axis=1, keepdims=True), 1e-12)


def weights(shares: Float[np.ndarray, "clips 13"]) -> Float[np.ndarray, "clips"]:
    """How likely each clip is drawn, summing to 1. An action that no clip has is left out."""
    shares = shares[:, shares.any(axis=0)]
    weight = np.full(len(shares), 1 / len(shares))
    for _ in range(_ROUNDS if shares.size else 0):
        frequency = weight @ shares
        weight = _capped(weight * np.exp(shares @ np.log(frequency.mean() / frequency)), MOST / len(shares))
    return weight


def _capped(weight: Float[np.ndarray, "clips"], most: float) -> Float[np.ndarray, "clips"]:
    """Weights in proportion to these that sum to 1, but for those that would exceed `most`, which have just that."""
    full = np.zeros(len(weight), bool)
    while True:
        rest = np.where(full, 0, weight)
        scaled = np.where(full, most, rest * (1 - most * full.sum()) / rest.sum())
        over = scaled > most * (1 + 1e-9)
        if not over.any():
            return scaled
        full |= over


class Drawn:
    """A random-access source whose entries are drawn from another's, endlessly, by weight.

    Every epoch of n draws takes entry i either floor(n w_i) or ceil(n w_i) times (systematic sampling) in an order
    of its own. What stands at an index follows from the seed and the index alone.

    Args:
      weights: of each entry, summing to 1.
    """

    def __init__(self, source: Any, weights: Float[np.ndarray, "clips"], seed: int):
        self._source, self._weights, self._seed = source, weights, seed
        self._order = (-1, np.empty(0, int))

    def __len__(self) -> int:
        return _EPOCHS * len(self._source)

    def __getitem__(self, index: int) -> Any:
        epoch, place = divmod(int(index), len(self._source))
        number, order = self._order  # read once: other threads may be an epoch ahead
        if number != epoch:
            order = self._epoch(epoch)
            self._order = (epoch, order)
        return self._source[int(order[place])]

    def _epoch(self, epoch: int) -> Int[np.ndarray, "clips"]:
        rng = np.random.default_rng([self._seed, epoch])
        count = len(self._weights)
        laid = rng.permutation(count)  # end to end, in an order without period, and met at equal distances
        met = np.searchsorted(np.cumsum(self._weights[laid]), (np.arange(count) + rng.random()) / count, side="right")
        return rng.permutation(laid[np.minimum(met, count - 1)])
