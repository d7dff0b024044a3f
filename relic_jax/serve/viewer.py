"""A page without a browser: shows blocks in real time as the page does, and keeps when what came.

For `launch.bench serve`, and for whoever writes a client: this is all that one has to do.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from relic_jax.serve import protocol


@dataclasses.dataclass
class Seen:
    """What a viewer saw. Times are seconds of the viewer's own clock.

    Fields:
      opened: when the world was asked for. arrivals: when each block came. shown: when its first frame was. late: how
        long the picture had stood still for it. sizes: bytes of each. making: seconds that the server took for each.
        pressed: when each control was sent, by seq. applied: seq of each block.
    """

    opened: float = 0.0
    arrivals: list[float] = dataclasses.field(default_factory=list)
    shown: list[float] = dataclasses.field(default_factory=list)
    late: list[float] = dataclasses.field(default_factory=list)
    frames: list[int] = dataclasses.field(default_factory=list)
    sizes: list[int] = dataclasses.field(default_factory=list)
    making: list[float] = dataclasses.field(default_factory=list)
    pressed: dict[int, float] = dataclasses.field(default_factory=dict)
    applied: list[int] = dataclasses.field(default_factory=list)

    def latencies(self, first: int = 0) -> list[float]:
        """From each press to the first frame of the first block, from the `first` on, that applied it."""
        found, newest = [], 0
        for block, (seq, shown) in enumerate(zip(self.applied, self.shown, strict=True)):
            if block >= first:
                found += [shown - self.pressed[s] for s in range(newest + 1, seq + 1) if s in self.pressed]
            newest = seq
        return found


async def watch(address: str, blocks: int, scene: str, prompt: str, press_every: float, token: str = "") -> Seen:
    """Plays so many blocks of a scene, with a new key every so many seconds: forward, left, right, in turn.

    Args:
      address: ws://HOST:PORT/ws, of a server with a free seat.

    Raises:
      ConnectionClosed: the server ended the connection.
    """
    seen = Seen()
    address = f"{address}?protocol_version={protocol.PROTOCOL_VERSION}"
    async with websockets.connect(address, max_size=None, compression=None) as socket:
        await socket.send(protocol.Hello(token=token).model_dump_json())
        fps = (await _until(socket, "welcome"))["fps"]
        while (await _until(socket, "warming"))["what"] != "ready":
            pass
        seen.opened = time.monotonic()
        await socket.send(protocol.Open(scene=scene, prompt=prompt).model_dump_json())
        await _until(socket, "opened")
        pressing = asyncio.create_task(_press(socket, seen, press_every))
        try:
            over: float | None = None
            for _ in range(blocks):
                over = await _show(socket, seen, fps, over)
        finally:
            pressing.cancel()
    return seen


async def _show(socket: ClientConnection, seen: Seen, fps: int, over: float | None) -> float:
    """Takes a block and shows it when the one before is over; gives back when it will be over itself."""
    header, parts = await _block(socket)
    now = time.monotonic()
    seen.arrivals.append(now)
    early = None if over is None else over - now
    if early is not None and early > 0:
        await asyncio.sleep(early)
    shown = max(now, over or now)
    seen.shown.append(shown)
    seen.late.append(max(0.0, -(early or 0.0)))
    seen.frames.append(len(parts))
    seen.sizes.append(sum(map(len, parts)))
    seen.making.append(header["end"] - header["start"])
    seen.applied.append(header["seq"])
    await socket.send(protocol.Ack(epoch=header["epoch"], block=header["block"], early=early).model_dump_json())
    return shown + len(parts) / fps


async def _press(socket: ClientConnection, seen: Seen, every: float) -> None:
    for seq in range(1, 2**31):
        turn = (0.0, -1.0, 1.0)[seq % 3]
        move = (0.0, 0.0, 0.0 if turn else 1.0)
        seen.pressed[seq] = time.monotonic()
        await socket.send(protocol.Control(seq=seq, move=move, turn=(turn, 0.0, 0.0)).model_dump_json())
        await asyncio.sleep(every)


async def _until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        data = await socket.recv()
        message = json.loads(data) if isinstance(data, str) else {"type": "block"}
        if message["type"] == "refused":
            raise RuntimeError(message["why"])
        if message["type"] == kind:
            return message


async def _block(socket: ClientConnection) -> tuple[dict[str, Any], list[bytes]]:
    while True:
        data = await socket.recv()
        if isinstance(data, bytes):
            header, *parts = protocol.unpack(data)
            return json.loads(header), parts
