"""One user's world: the walk, how its frames are sent, its recording, and what the user has done to it."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from relic_jax.errors import InputError
from relic_jax.serve import codec, protocol, walks
from relic_jax.serve.engine import Engine, Made
from relic_jax.serve.limits import Limits, read_picture
from relic_jax.serve.recorder import Recorder
from relic_jax.serve.scenes import Scenes

Say = Callable[..., Awaitable[None]]


@dataclasses.dataclass(frozen=True)
class Ready:
    """A block that is made and not sent yet."""

    header: protocol.Block
    parts: list[bytes]
    frames: walks.Frames


class World:
    """What a user sees and has; one thing is done to it at a time.

    Attributes:
      epoch: counts its pasts. attention: whether blocks say what of the memory they attend to.
    """

    def __init__(self, engine: Engine, scenes: Scenes, limits: Limits, quality: int, say: Say):
        self.epoch = 0
        self.attention = False
        self._engine, self._scenes, self._limits, self._quality, self._say = engine, scenes, limits, quality, say
        self._shape = engine.model.shape
        self._walk: walks.Walk | None = None
        self._key = True  # the next block begins a stream of its own
        self._encoder: codec.Encoder = codec.Jpeg(quality)
        self._recorder: Recorder | None = None
        self._commands: dict[type, Callable[[Any, bytes], Awaitable[None]]] = {
            protocol.Open: self._open,
            protocol.Load: self._load,
            protocol.Reset: self._reset,
            protocol.Branch: self._branch,
            protocol.Describe: self._describe,
            protocol.Record: self._record,
            protocol.Save: self._save,
        }

    @property
    def stands(self) -> bool:
        """Whether there is a walk."""
        return self._walk is not None

    def knows(self, message: protocol.FromPage) -> bool:
        """Whether `obey` is for such messages."""
        return type(message) in self._commands

    async def obey(self, message: protocol.FromPage, payload: bytes) -> None:
        """Does what a message asks for, or says why it can't be done; then all is as it was."""
        try:
            await self._commands[type(message)](message, payload)
        except InputError as error:
            await self._say(protocol.Refused(why=str(error)))

    async def make(self, control: Callable[[], protocol.Control | None]) -> Ready:
        """The next block, with what is held when it begins."""
        walk = self._current()
        made = await self._engine.play(walk, control)
        parts, memory = await self._engine.aside(self._encode, walk, made)
        header = protocol.Block(
            epoch=self.epoch,
            block=walk.blocks - 1,
            seq=made.seq,
            start=made.start,
            end=made.end,
            codec=self._encoder.name,
            key=self._key,
            pose=walks.pose_message(walk),
            memory=memory,
        )
        self._key = False
        return Ready(header, parts, made.frames)

    async def sent(self, ready: Ready) -> None:
        """A block, the newest, is on its way."""
        if self._recorder is None:
            return
        await self._engine.aside(self._recorder.add, self._current(), ready.frames)
        if self._recorder.seconds >= self._limits.record:
            await self._end_recording()

    def close(self) -> None:
        """Leaves no file behind."""
        if self._recorder is not None:
            self._recorder.close()

    def _encode(self, walk: walks.Walk, made: Made) -> tuple[list[bytes], protocol.Memory]:
        return self._encoder.encode(made.frames, self._key), walk.memory(self.attention)

    def _current(self) -> walks.Walk:
        if self._walk is None:
            raise InputError("there is no world yet; open one first")
        return self._walk

    async def _stand(self, walk: walks.Walk, notes: list[str]) -> None:
        """Goes on with this walk from here."""
        self._walk, self._key = walk, True
        self.epoch += 1
        opened = protocol.Opened(
            epoch=self.epoch,
            blocks=walk.blocks,
            prompt=walk.prompt,
            seed=str(walk.seed),
            notes=notes,
            path=walk.path(),
        )
        await self._say(opened)

    async def _open(self, message: protocol.Open, payload: bytes) -> None:
        if bool(payload) == (message.scene is not None):
            raise InputError("a world begins with a scene or with a picture, one of them")
        height, width = self._shape.height, self._shape.width
        data = payload or self._scenes.read(message.scene or "")
        image, note = await self._engine.aside(read_picture, data, self._limits, height, width)
        walk, notes = await self._engine.aside(self._engine.model.open, image, message.prompt, message.seed)
        await self._end_recording()
        self._encoder = self._new_encoder(message.codec)
        await self._stand(walk, [*([note] if note and payload else []), *notes])

    async def _load(self, message: protocol.Load, payload: bytes) -> None:
        walk = await self._engine.aside(self._engine.model.load, payload)
        await self._end_recording()
        self._encoder = self._new_encoder(message.codec)
        await self._stand(walk, [])

    def _new_encoder(self, name: protocol.Codec) -> codec.Encoder:
        return codec.make(name, self._shape.height, self._shape.width, self._shape.fps, self._quality)

    async def _reset(self, message: protocol.Reset, payload: bytes) -> None:
        del payload
        walk = await self._engine.aside(self._current().again, message.seed)
        await self._end_recording()
        await self._stand(walk, [])

    async def _branch(self, message: protocol.Branch, payload: bytes) -> None:
        del payload
        await self._stand(await self._engine.aside(self._current().branch, message.blocks, message.seed), [])

    async def _describe(self, message: protocol.Describe, payload: bytes) -> None:
        del payload
        walk = self._current()
        notes = await self._engine.aside(walk.describe, message.prompt)
        await self._say(protocol.Described(prompt=walk.prompt, notes=notes))

    async def _record(self, message: protocol.Record, payload: bytes) -> None:
        del payload
        self._current()
        if not message.on:
            await self._end_recording()
        elif self._recorder is None:
            self._recorder = await self._engine.aside(Recorder, self._shape)
            await self._say(protocol.Recording(on=True))

    async def _end_recording(self) -> None:
        """Gives the user what there is of one."""
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        await self._say(protocol.Recording(on=False))
        if not recorder.frames:
            recorder.close()
            return
        name = f"relic-{secrets.token_hex(3)}"
        film, log = await self._engine.aside(recorder.finish, self._current(), self._engine.model.name)
        await self._say(protocol.File(name=f"{name}.mp4", media="video/mp4"), film)
        await self._say(protocol.File(name=f"{name}.json", media="application/json"), log)

    async def _save(self, message: protocol.Save, payload: bytes) -> None:
        del message, payload
        data = await self._engine.aside(self._current().save)
        name = f"session-{secrets.token_hex(3)}.relic"
        await self._say(protocol.File(name=name, media="application/octet-stream"), data)
