"""Who plays and who waits: seats, and a queue that its users see."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from relic_jax.serve.metrics import Metrics
from relic_jax.serve.protocol import Close, ProtocolError


class Lobby:
    """`seats` users play at once, `waiting` more may wait."""

    def __init__(self, seats: int, waiting: int, metrics: Metrics):
        self._free, self._room, self._metrics = seats, waiting, metrics
        self._queue: list[asyncio.Event] = []  # set when the place has changed

    @contextlib.asynccontextmanager
    async def seat(self, tell: Callable[[int], Awaitable[None]]) -> AsyncIterator[None]:
        """A seat, as soon as there is one.

        Args:
          tell: told the place in the queue whenever that changes, 1 for the next.

        Raises:
          ProtocolError: the queue is full too.
        """
        if self._free and not self._queue:
            self._free -= 1
        else:
            await self._wait(tell)
        self._count()
        try:
            yield
        finally:
            self._free += 1
            self._moved()

    async def _wait(self, tell: Callable[[int], Awaitable[None]]) -> None:
        if len(self._queue) >= self._room:
            raise ProtocolError("all seats are taken; come back later", Close.BUSY)
        moved = asyncio.Event()
        self._queue.append(moved)
        self._count()
        try:
            while not (self._free and self._queue[0] is moved):
                await tell(self._queue.index(moved) + 1)
                await moved.wait()
                moved.clear()
            self._free -= 1
        finally:
            self._queue.remove(moved)
            self._moved()

    def _moved(self) -> None:
        self._count()
        for event in self._queue:
            event.set()

    def _count(self) -> None:
        self._metrics.waiting.set(len(self._queue))
