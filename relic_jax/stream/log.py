"""What was done to a session since its picture: enough to make the same frames again, bit for bit on the same device.

Bits depend on the compiled program as well as on the numbers. So a log keeps what no frame shows: which blocks were
made together with other sessions' (`rows`, `row`), and where memory was made again from latents (`Branch`).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from relic_jax import outside
from relic_jax.camera.actions import ACTIONS, checked
from relic_jax.errors import InputError

FORMAT, VERSION = "relic-jax session log", 1
MAX_ROWS = 64  # sessions of one step


@dataclasses.dataclass(frozen=True)
class Play:
    """A block was made, the `row`-th of `rows` sessions in one step."""

    actions: Float[np.ndarray, "T 13"]  # of a whole block; the picture's four come first in the first
    rows: int = 1
    row: int = 0


@dataclasses.dataclass(frozen=True)
class Describe:
    """Another prompt from here on."""

    prompt: str


@dataclasses.dataclass(frozen=True)
class Branch:
    """Another future of so many blocks of the past (None: all), with the noise of another seed (None: its own)."""

    blocks: int | None
    seed: int | None


Event = Play | Describe | Branch


@dataclasses.dataclass(frozen=True)
class Log:
    """How a session began and what came then, in order. The past that a branch has dropped is in it too."""

    picture: Float[np.ndarray, "h w C"]  # latent 0, normalised
    prompt: str
    seed: int
    events: tuple[Event, ...] = ()

    def then(self, event: Event) -> Log:
        return dataclasses.replace(self, events=(*self.events, event))

    def prompts(self) -> list[str]:
        """The prompt of each block that is there now, and last that of the next."""
        made: list[str] = []
        current = self.prompt
        for event in self.events:
            if isinstance(event, Play):
                made.append(current)
            elif isinstance(event, Describe):
                current = event.prompt
            elif event.blocks is not None and event.blocks < len(made):
                current = made[event.blocks]
                made = made[: event.blocks]
        return [*made, current]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        picture = self.picture.astype("<f4")
        return {
            "format": FORMAT,
            "version": VERSION,
            "prompt": self.prompt,
            "seed": self.seed,
            "picture": {"shape": list(picture.shape), "float32": base64.b64encode(picture.tobytes()).decode()},
            "events": [_event_to_dict(event) for event in self.events],
        }

    @classmethod
    def from_dict(cls, values: Any, name: str) -> Log:
        """What `to_dict` gave; other entries beside are left alone.

        Raises:
          InputError: it is none, or names the first event that can't be; `name` is the file's.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise InputError(f"{name} is no log of a session; expected a JSON object whose format is {FORMAT!r}")
        if values.get("version") != VERSION:
            raise InputError(f"{name} has version {values.get('version')!r} of the log; expected {VERSION}")
        try:
            picture, events = values["picture"], values["events"]
            raw = np.frombuffer(base64.b64decode(picture["float32"], validate=True), "<f4")
            latent = outside.array(raw.reshape(picture["shape"]), f"{name}: picture").astype(np.float32)
            if latent.ndim != 3 or not isinstance(values["prompt"], str):
                raise TypeError("the picture has three axes and the prompt is text")
            seed = outside.seed(values["seed"], f"{name}: seed")
            found = tuple(_event_from_dict(event, f"{name}, event {i}") for i, event in enumerate(events))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise InputError(f"{name} is no readable log of a session: {type(error).__name__}: {error}") from error
        return cls(latent, values["prompt"], seed, found)

    def play_blocks(self) -> Iterator[Play]:
        """The blocks, in the order they were made."""
        return (event for event in self.events if isinstance(event, Play))


def _event_to_dict(event: Event) -> dict[str, Any]:
    if isinstance(event, Play):
        together = {"rows": event.rows, "row": event.row} if event.rows > 1 else {}
        return {"play": _runs(event.actions), **together}
    if isinstance(event, Describe):
        return {"prompt": event.prompt}
    return {"branch": {"blocks": event.blocks, "seed": event.seed}}


def _event_from_dict(values: Mapping[str, Any], name: str) -> Event:
    if "play" in values:
        rows, row = (outside.seed(values.get(field, default), name) for field, default in (("rows", 1), ("row", 0)))
        if not 0 <= row < rows <= MAX_ROWS:
            raise InputError(f"{name}: expected row below rows, and these at most {MAX_ROWS}, got {row} and {rows}")
        return Play(checked(_from_runs(values["play"]), name), rows, row)
    if "prompt" in values:
        return Describe(str(values["prompt"]))
    branch = {
        field: None if values["branch"][field] is None else outside.seed(values["branch"][field], f"{name}: {field}")
        for field in ("blocks", "seed")
    }
    return Branch(**branch)


def _runs(actions: Float[np.ndarray, "T 13"]) -> list[list[Any]]:
    """Equal actions after each other as their number and what isn't zero of them. A float32 comes back bit for bit."""
    runs: list[list[Any]] = []
    for action in actions:
        held = {name: float(value) for name, value in zip(ACTIONS, action, strict=True) if value}
        if runs and runs[-1][1] == held:
            runs[-1][0] += 1
        else:
            runs.append([1, held])
    return runs


def _from_runs(runs: list[list[Any]]) -> Float[np.ndarray, "T 13"]:
    rows = []
    for count, held in runs:
        unknown = set(held) - set(ACTIONS)
        if unknown:
            raise ValueError(f"{min(unknown)!r} is no action")
        if not 1 <= count <= 4096:
            raise ValueError(f"{count!r} frames of an action")
        rows += [[held.get(name, 0.0) for name in ACTIONS]] * count
    return np.array(rows, np.float32)
