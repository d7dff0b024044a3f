"""What the server drives: a model that opens walks and makes blocks of several of them in one step.

`relic.Relic` is the world model, `fake.Fake` a moving test pattern. Methods run in threads, never two at once of one
walk.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from relic_jax.camera import actions as camera_actions
from relic_jax.camera.actions import ACTIONS, STATIC
from relic_jax.camera.keys import ROTATION, TRANSLATION
from relic_jax.camera.poses import FRAMES_PER_LATENT, euler_from_rotation
from relic_jax.serve import protocol

Frames = UInt8[np.ndarray, "N H W 3"]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a model's videos: pixels, frames a second, frames a block; the first has the picture and fewer."""

    height: int
    width: int
    fps: int
    block: int

    @property
    def first(self) -> int:
        return self.block - FRAMES_PER_LATENT + 1

    @property
    def seconds(self) -> float:
        """Of a block."""
        return self.block / self.fps


class Walk(abc.ABC):
    """One user's world."""

    prompt: str
    seed: int

    @property
    @abc.abstractmethod
    def blocks(self) -> int:
        """Made so far."""

    @property
    @abc.abstractmethod
    def made(self) -> int:
        """Made since it was opened, those that a branch has dropped among them: a block's number in the log."""

    @abc.abstractmethod
    def pose(self) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
        """World-to-camera rotation and camera centre of the last frame."""

    @abc.abstractmethod
    def poses(self) -> tuple[Float[np.ndarray, "N 3 3"], Float[np.ndarray, "N 3"]]:
        """Of each frame of the newest block."""

    @abc.abstractmethod
    def path(self) -> list[tuple[float, float]]:
        """x and z of the camera after each block."""

    @abc.abstractmethod
    def memory(self, mass: bool) -> protocol.Memory:
        """What it remembers, with attention's mass where asked for."""

    @abc.abstractmethod
    def describe(self, prompt: str) -> list[str]:
        """Another prompt from here on; what of it isn't understood."""

    @abc.abstractmethod
    def branch(self, blocks: int, seed: int | None) -> Walk:
        """Another walk that has this one's first blocks."""

    @abc.abstractmethod
    def again(self, seed: int) -> Walk:
        """Another walk from the same picture and prompt."""

    @abc.abstractmethod
    def save(self) -> bytes:
        """All of it, as a file."""

    @abc.abstractmethod
    def log(self) -> dict[str, Any]:
        """How it came to be, for JSON."""


class Model(abc.ABC):
    """What walks are opened with."""

    name: str
    shape: Shape

    @abc.abstractmethod
    def warm_up(self, batch: int) -> Iterator[tuple[int, int, str]]:
        """Compiles all that a user would wait for, and says what comes next: parts done, in all, what."""

    @abc.abstractmethod
    def open(self, picture: Float[np.ndarray, "H W 3"], prompt: str, seed: int) -> tuple[Walk, list[str]]:
        """A new walk, and what of the prompt isn't understood."""

    @abc.abstractmethod
    def load(self, data: bytes) -> Walk:
        """What `Walk.save` gave.

        Raises:
          InputError: it can't be gone on with.
        """

    @abc.abstractmethod
    def play(self, walks: Sequence[Walk], actions: Sequence[Float[np.ndarray, "T 13"]]) -> list[Frames]:
        """The next block of each, in one step."""


def actions_of(control: protocol.Control | None, walk: Walk, shape: Shape) -> Float[np.ndarray, "T 13"]:
    """A block's actions while a control is held; the first four of a walk belong to its picture."""
    action = np.zeros(len(ACTIONS), np.float32)
    if control is not None:
        right, up, forward = (value * TRANSLATION for value in control.move)
        pan, tilt, roll = (value * ROTATION for value in control.turn)
        signed = (forward, -right, up, tilt, -pan, roll)  # in the order of ACTIONS' pairs
        for pair, value in enumerate(signed):
            action[2 * pair + (value < 0)] = abs(value)
    if not action.any():
        action[STATIC] = 1
    actions = np.tile(action, (shape.block, 1))
    if not walk.blocks:
        actions[:FRAMES_PER_LATENT] = camera_actions.static_actions(FRAMES_PER_LATENT)
    return actions


def pose_message(walk: Walk) -> protocol.Pose:
    rotation, position = walk.pose()
    yaw, pitch, roll = (round(float(angle), 3) for angle in euler_from_rotation(rotation))
    x, y, z = (round(float(value), 4) for value in position)
    return protocol.Pose(position=(x, y, z), yaw=yaw, pitch=pitch, roll=roll)
