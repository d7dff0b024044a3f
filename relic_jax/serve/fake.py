"""A moving test pattern with the pose drawn on it: the page's own model, and the tests'."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from relic_jax import pixels
from relic_jax.camera.actions import advance
from relic_jax.camera.poses import euler_from_rotation
from relic_jax.config import RELIC_SCHEDULE
from relic_jax.errors import InputError
from relic_jax.models.text import clean
from relic_jax.serve import protocol
from relic_jax.serve.walks import Frames, Model, Shape, Walk

_UNIT, _DEGREES = 0.1, 1.0  # of an action of magnitude 1
_LATENTS, _HORIZON = 4, 80  # a block's; what it pretends to remember


class FakeWalk(Walk):
    """A picture that slides as the camera turns and grows as it moves."""

    def __init__(self, picture: UInt8[np.ndarray, "H W 3"], prompt: str, seed: int, history: list[dict[str, Any]]):
        self._picture, self.prompt, self.seed = picture, prompt, seed
        self._history = history  # after each block: rotation, position, prompt
        self._made = len(history)
        self._last = np.eye(3)[None], np.zeros((1, 3))

    @property
    def blocks(self) -> int:
        return len(self._history)

    @property
    def made(self) -> int:
        return self._made

    def pose(self) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
        if not self._history:
            return np.eye(3), np.zeros(3)
        last = self._history[-1]
        return np.array(last["rotation"]), np.array(last["position"])

    def poses(self) -> tuple[Float[np.ndarray, "N 3 3"], Float[np.ndarray, "N 3"]]:
        return self._last

    def path(self) -> list[tuple[float, float]]:
        return [(one["position"][0], one["position"][2]) for one in self._history]

    def memory(self, mass: bool) -> protocol.Memory:
        latents = range(max(0, self.blocks * _LATENTS - _HORIZON), self.blocks * _LATENTS)
        window = self.blocks * _LATENTS - _LATENTS
        held = [(i, 1 if i >= window else RELIC_SCHEDULE[i % len(RELIC_SCHEDULE)]) for i in latents]
        near = np.array([0.9 ** (self.blocks * _LATENTS - i) for i in latents])
        seen = [float(x) for x in (near / near.sum()).round(5)] if mass and held else None
        return protocol.Memory(held=held, mass=seen)

    def describe(self, prompt: str) -> list[str]:
        self.prompt = clean(prompt)
        return []

    def branch(self, blocks: int, seed: int | None) -> FakeWalk:
        if blocks > self.blocks:
            raise InputError(f"a branch of {blocks} blocks: the session has {self.blocks}")
        prompt = self._history[blocks]["prompt"] if blocks < self.blocks else self.prompt
        other = FakeWalk(self._picture, prompt, self.seed if seed is None else seed, self._history[:blocks])
        other._made = self._made
        return other

    def again(self, seed: int) -> FakeWalk:
        return FakeWalk(self._picture, self.prompt, seed, [])

    def save(self) -> bytes:
        picture = self._picture.tolist()
        return json.dumps(
            {"fake": picture, "prompt": self.prompt, "seed": self.seed, "history": self._history}
        ).encode()

    def log(self) -> dict[str, Any]:
        return {"format": "relic-jax test pattern", "prompt": self.prompt, "seed": self.seed}

    def step(self, actions: Float[np.ndarray, "T 13"]) -> Frames:
        """The frames of a block."""
        first = not self._history
        rotation, position = self.pose()
        moved = advance(rotation, position, actions.astype(np.float64), _UNIT, _DEGREES)
        rotations, positions = (np.asarray(values) for values in moved)
        shown = zip(rotations, positions, strict=True)
        frames = np.stack([self._draw(turned, at) for turned, at in shown])
        self._history.append(
            {"rotation": rotations[-1].tolist(), "position": positions[-1].tolist(), "prompt": self.prompt}
        )
        self._made += 1
        hidden = 3 if first else 0  # the picture's four are one frame
        self._last = rotations[hidden:], positions[hidden:]
        return frames[hidden:]

    def _draw(self, rotation: Float[np.ndarray, "3 3"], position: Float[np.ndarray, "3"]) -> UInt8[np.ndarray, "H W 3"]:
        yaw, pitch, roll = (float(angle) for angle in euler_from_rotation(rotation))
        height, width = self._picture.shape[:2]
        scale = float(np.clip(1 + 0.15 * position[2], 0.25, 4))
        shift = (yaw / 80 * width - position[0] * 6, -pitch / 80 * width - position[1] * 6)
        turned = Image.fromarray(np.roll(self._picture, (round(-shift[1]), round(-shift[0])), (0, 1)))
        turned = turned.rotate(roll, Image.Resampling.BILINEAR)
        box = (width / 2 * (1 - 1 / scale), height / 2 * (1 - 1 / scale))
        image = turned.transform((width, height), Image.Transform.AFFINE, (1 / scale, 0, box[0], 0, 1 / scale, box[1]))
        draw = ImageDraw.Draw(image)
        text = f"{position[0]:.1f} {-position[1]:.1f} {position[2]:.1f}  {yaw:.0f} {pitch:.0f} {roll:.0f}"
        draw.text((2, 1), text, (255, 255, 255), ImageFont.load_default(9), stroke_width=1, stroke_fill=(0, 0, 0))
        return np.asarray(image)


class Fake(Model):
    """Makes blocks at once, or in `seconds` each, however many sessions a step has."""

    name = "test pattern"

    def __init__(self, shape: Shape | None = None, seconds: float = 0.0, warm_seconds: float = 0.0):
        self.shape = shape or Shape(64, 96, 16, 16)
        self._seconds, self._warm_seconds = seconds, warm_seconds

    def warm_up(self, batch: int) -> Iterator[tuple[int, int, str]]:
        for done in range(4):
            yield done, 4, "drawing the pattern"
            time.sleep(self._warm_seconds / 4)
        yield 4, 4, "ready"

    def open(self, picture: Float[np.ndarray, "H W 3"], prompt: str, seed: int) -> tuple[FakeWalk, list[str]]:
        return FakeWalk(pixels.to_uint8(picture), clean(prompt), seed, []), []

    def load(self, data: bytes) -> FakeWalk:
        try:
            saved = json.loads(data)
            picture = np.array(saved["fake"], np.uint8)
            return FakeWalk(picture, saved["prompt"], saved["seed"], saved["history"])
        except (ValueError, KeyError, TypeError):
            raise InputError("the session's file is not one that was saved here") from None

    def play(self, walks: Sequence[Walk], actions: Sequence[Float[np.ndarray, "T 13"]]) -> list[Frames]:
        time.sleep(self._seconds)
        return [w.step(a) for w, a in zip(walks, actions, strict=True) if isinstance(w, FakeWalk)]
