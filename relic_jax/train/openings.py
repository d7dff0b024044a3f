"""The first seconds of many clips in a batch, beside the few whole ones that a long rollout can afford.

What a picture determines ends after some seconds, and a rollout of 40 s shows it once: its batches say much about how
a stream goes on, and little about how it begins. Beginnings are short, so many of them cost less than one long clip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from relic_jax.train.stage import Batches

_PREFIX = "opening_"


@dataclasses.dataclass(frozen=True)
class Beside:
    """Batches of clips, each with one of openings, whose fields have a name of their own; see `stage.Batches`."""

    clips: Batches
    openings: Batches

    def __next__(self) -> dict[str, np.ndarray]:
        return join(next(self.clips), next(self.openings))

    def get_state(self) -> dict:
        return {"clips": self.clips.get_state(), "openings": self.openings.get_state()}

    def set_state(self, state: dict) -> None:
        self.clips.set_state(state["clips"])
        self.openings.set_state(state["openings"])


def join[T](clips: Mapping[str, T], openings: Mapping[str, T]) -> dict[str, T]:
    """One batch of both."""
    return {**clips, **{_PREFIX + name: x for name, x in openings.items()}}


def split[T](batch: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
    """A batch's clips, and its openings under the names that clips have; none if it has none."""
    clips = {name: x for name, x in batch.items() if not name.startswith(_PREFIX)}
    return clips, {name.removeprefix(_PREFIX): x for name, x in batch.items() if name.startswith(_PREFIX)}
