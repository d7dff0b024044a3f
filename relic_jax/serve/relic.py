"""The world model behind the server: walks are sessions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from relic_jax.camera.actions import static_actions
from relic_jax.camera.poses import FRAMES_PER_LATENT
from relic_jax.errors import InputError
from relic_jax.models import text
from relic_jax.models.bundle import Bundle
from relic_jax.serve import protocol
from relic_jax.serve.walks import Frames, Model, Shape, Walk
from relic_jax.stream.log import Branch, Log
from relic_jax.stream.session import Session


class RelicWalk(Walk):
    """A session, and the way it went."""

    def __init__(self, model: Bundle, session: Session, path: list[tuple[float, float]], made: int):
        self._model, self.session = model, session
        self._path, self._made = path, made
        self.prompt, self.seed = session.log.prompts()[-1], _seed(session.log)

    @property
    def blocks(self) -> int:
        return self.session.blocks

    @property
    def made(self) -> int:
        return self._made

    def pose(self) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
        return self.session.pose

    def path(self) -> list[tuple[float, float]]:
        return self._path

    def poses(self) -> tuple[Float[np.ndarray, "N 3 3"], Float[np.ndarray, "N 3"]]:
        rotations, positions = self.session.poses
        shown = FRAMES_PER_LATENT * self._model.config.stream.block
        shown -= FRAMES_PER_LATENT - 1 if self.blocks == 1 else 0  # the picture's four are one frame
        return rotations[-shown:], positions[-shown:]

    def went_on(self) -> None:
        """A block was made."""
        _, position = self.session.pose
        self._path.append((float(position[0]), float(position[2])))
        self._made += 1

    def memory(self, mass: bool) -> protocol.Memory:
        held = [(one.latent, one.factor) for one in self.session.memory]
        seen = [round(float(share), 5) for share in self.session.attended()] if mass and self.blocks else None
        return protocol.Memory(held=held, mass=seen)

    def describe(self, prompt: str) -> list[str]:
        self.session.describe(prompt)
        self.prompt = text.clean(prompt)
        return text.losses(self._model.tokenizer, self._model.config.text.length, self.prompt)

    def branch(self, blocks: int, seed: int | None) -> RelicWalk:
        return RelicWalk(self._model, self.session.branch(seed, blocks), self._path[:blocks], self._made)

    def again(self, seed: int) -> RelicWalk:
        log = self.session.log
        session = Session.begin(self._model, Log(log.picture, log.prompts()[-1], seed))
        return RelicWalk(self._model, session, [], 0)

    def save(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "session"
            self.session.save(path)
            return path.read_bytes()

    def log(self) -> dict[str, Any]:
        return self.session.log.to_dict()


class Relic(Model):
    """A bundle, served."""

    def __init__(self, model: Bundle):
        cfg = model.config
        self.name = cfg.name
        self.shape = Shape(cfg.video.height, cfg.video.width, cfg.video.fps, cfg.stream.block * FRAMES_PER_LATENT)
        self._model = model

    def warm_up(self, batch: int) -> Iterator[tuple[int, int, str]]:
        sizes = [1]
        while sizes[-1] * 2 <= batch:
            sizes.append(sizes[-1] * 2)
        total = len(sizes) + 2
        yield 0, total, "reading the picture"
        blank = np.zeros((self.shape.height, self.shape.width, 3), np.float32)
        walk = self.open(blank, "a room", 0)[0]
        for done, size in enumerate(sizes, 1):
            yield done, total, "compiling the step" if size == 1 else f"compiling the step of {size} sessions"
            walks = [walk.branch(0, None) for _ in range(size)] if size > 1 else [walk]
            self.play(walks, [static_actions(self.shape.block)] * size)
        yield total - 1, total, "compiling the way back"
        walk.memory(mass=True)
        walk.branch(1, None)
        yield total, total, "ready"

    def open(self, picture: Float[np.ndarray, "H W 3"], prompt: str, seed: int) -> tuple[RelicWalk, list[str]]:
        session = Session.open(self._model, picture, prompt, seed)
        notes = text.losses(self._model.tokenizer, self._model.config.text.length, prompt)
        return RelicWalk(self._model, session, [], 0), notes

    def load(self, data: bytes) -> RelicWalk:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "session"
            path.write_bytes(data)
            try:
                session = Session.load(path, self._model)
            except InputError as error:
                raise InputError(str(error).replace(str(path), "the session's file")) from None
        made = sum(1 for _ in session.log.play_blocks())
        return RelicWalk(self._model, session, _path_of(session), made)

    def play(self, walks: Sequence[Walk], actions: Sequence[Float[np.ndarray, "T 13"]]) -> list[Frames]:
        ours = [walk for walk in walks if isinstance(walk, RelicWalk)]
        frames = Session.together([walk.session for walk in ours], actions)
        for walk in ours:
            walk.went_on()
        return frames


def _path_of(session: Session) -> list[tuple[float, float]]:
    size = session.config.stream.block * FRAMES_PER_LATENT
    return [(float(x), float(z)) for x, _, z in session.poses[1][size - 1 :: size]]


def _seed(log: Log) -> int:
    """The one in force."""
    return next((e.seed for e in reversed(log.events) if isinstance(e, Branch) and e.seed is not None), log.seed)
