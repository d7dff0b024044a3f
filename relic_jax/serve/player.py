"""One user, from the hello to the end: what the page asks for, and a block whenever the page needs one.

Two tasks share the connection. `_listen` takes what the page says at once: keys, acknowledgements, pause. `_drive`
does everything that takes time, one thing after the other. At most one block is on its way to the page without its
word that it shows it, and at most one is being made or waits for that word. So nothing ever queues: a page that is
slow, or far away, gets its blocks later, never older.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from relic_jax.serve import protocol
from relic_jax.serve.engine import Engine
from relic_jax.serve.limits import Bucket, Limits
from relic_jax.serve.lobby import Lobby
from relic_jax.serve.metrics import Metrics, resident_bytes
from relic_jax.serve.pace import Pace
from relic_jax.serve.protocol import Close, ProtocolError
from relic_jax.serve.scenes import Scenes
from relic_jax.serve.world import Ready, World

_PROGRESS_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Services:
    """What all users share."""

    engine: Engine
    lobby: Lobby
    scenes: Scenes
    limits: Limits
    metrics: Metrics
    quality: int  # of JPEG


class Player:
    """A user. `run` ends when the connection does."""

    def __init__(self, socket: WebSocket, services: Services):
        self._socket, self._services, self._limits = socket, services, services.limits
        self._engine, self._metrics = services.engine, services.metrics
        self._world = World(services.engine, services.scenes, services.limits, services.quality, self.say)
        self._pace = Pace(self._engine.model.shape.seconds)
        self._bucket = Bucket(self._limits.messages, self._limits.burst, time.monotonic())
        self._commands: collections.deque[tuple[protocol.FromPage, bytes]] = collections.deque()
        self._changed = asyncio.Event()  # the page has said something
        self._sending = asyncio.Lock()
        self._control: protocol.Control | None = None
        self._heard = time.monotonic()  # when the user last did something
        self._paused = False
        self._unshown: int | None = None  # the block that was sent and isn't shown yet
        self._ready: Ready | None = None  # the one after it, made

    async def run(self) -> None:
        """Waits for a seat and for the model, then plays.

        Raises:
          ProtocolError: there is no seat, the page said what can't be, or nothing for too long.
          WebSocketDisconnect: it has gone.
        """
        tasks = [asyncio.create_task(task) for task in (self._listen(), self._sit())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self._world.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def say(self, message: protocol.Message, *parts: bytes) -> None:
        """Sends a message, with its parts where it has some.

        Raises:
          ProtocolError: the page has taken nothing for too long.
        """
        try:
            async with asyncio.timeout(self._limits.stall), self._sending:
                if parts:
                    await self._socket.send_bytes(protocol.pack(message, parts))
                else:
                    await self._socket.send_text(message.model_dump_json())
        except TimeoutError:
            raise ProtocolError("the page takes nothing of what is sent", Close.TIMEOUT) from None

    async def _listen(self) -> None:
        while True:
            message, payload = await receive(self._socket)
            now = time.monotonic()
            if not self._bucket.take(now):
                raise ProtocolError("too many messages at once", Close.TOO_MANY)
            if isinstance(message, protocol.Control):
                self._take_control(message, now)
            elif isinstance(message, protocol.Ack):
                self._take_ack(message, now)
            elif isinstance(message, protocol.Ping):
                await self.say(protocol.Pong(at=message.at, time=now, memory_bytes=resident_bytes()))
            elif isinstance(message, protocol.Pause):
                self._take_pause(message, now)
            elif isinstance(message, protocol.Attention):
                self._world.attention = message.on
            else:
                self._take_command(message, payload, now)
            self._changed.set()

    def _take_control(self, message: protocol.Control, now: float) -> None:
        if self._control is not None and message.seq < self._control.seq:
            raise ProtocolError("a control's seq is below the one before")
        if any((*message.move, *message.turn)):
            self._heard = now
        self._control = message

    def _take_ack(self, message: protocol.Ack, now: float) -> None:
        if message.epoch > self._world.epoch:
            raise ProtocolError("an acknowledgement of a block that was never sent")
        if message.epoch < self._world.epoch or message.block != self._unshown:
            return  # of before a reset, or once more
        self._unshown = None
        self._pace.shown(now, message.early)
        if message.early is not None and message.early < 0:
            self._metrics.late.inc()
            self._metrics.stalled.inc(-message.early)

    def _take_pause(self, message: protocol.Pause, now: float) -> None:
        self._paused, self._heard = message.on, now
        if not message.on:
            self._pace.restart()

    def _take_command(self, message: protocol.FromPage, payload: bytes, now: float) -> None:
        if not self._world.knows(message):
            raise ProtocolError(f"{message.type} comes first of all, once")
        if len(self._commands) >= self._limits.waiting_commands:
            raise ProtocolError("too many commands at once", Close.TOO_MANY)
        self._heard = now
        self._commands.append((message, payload))

    async def _sit(self) -> None:
        async with self._services.lobby.seat(lambda place: self.say(protocol.Waiting(place=place))):
            await self.say(protocol.Waiting(place=0))
            while not self._engine.ready.is_set():
                await self.say(self._engine.warming)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PROGRESS_SECONDS):
                        await self._engine.ready.wait()
            await self.say(self._engine.warming)
            self._heard = time.monotonic()
            self._metrics.playing.inc()
            try:
                await self._drive()
            finally:
                self._metrics.playing.dec()

    async def _drive(self) -> None:
        while True:
            left = self._heard + self._limits.idle - time.monotonic()
            if left <= 0:
                raise ProtocolError(f"no key was pressed for {self._limits.idle:g} s", Close.TIMEOUT)
            if self._commands:
                await self._obey(*self._commands.popleft())
            elif self._ready is not None and self._unshown is None:
                await self._send(self._ready)
            else:
                wait = self._wait()
                if wait is not None and wait <= 0:
                    self._pace.begun()
                    self._ready = await self._world.make(lambda: self._control)
                else:
                    await self._change(left if wait is None else min(wait, left))

    def _wait(self) -> float | None:
        """Seconds until a block is to be begun; None: not before the page has said something."""
        if not self._world.stands or self._paused or self._ready is not None:
            return None
        return self._pace.wait(time.monotonic())

    async def _change(self, seconds: float) -> None:
        """Until the page has said something, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    async def _obey(self, message: protocol.FromPage, payload: bytes) -> None:
        before = self._world.epoch
        await self._world.obey(message, payload)
        if self._world.epoch > before:  # what was made or is on its way is of another past
            self._metrics.dropped.inc(self._ready is not None)
            self._ready = self._unshown = None
            self._pace.restart()

    async def _send(self, ready: Ready) -> None:
        self._ready, self._unshown = None, ready.header.block
        await self.say(ready.header, *ready.parts)
        self._pace.sent(time.monotonic())
        await self._world.sent(ready)


async def receive(socket: WebSocket) -> tuple[protocol.FromPage, bytes]:
    """The next message of the page.

    Raises:
      ProtocolError: it is none. WebSocketDisconnect: the page has gone.
    """
    event = await socket.receive()
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1005), event.get("reason"))
    data = event.get("bytes")
    return protocol.parse(event["text"] if data is None else data)
