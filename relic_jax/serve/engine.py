"""The one place where blocks are made: a thread for steps, others for what takes longer and disturbs nobody.

Users ask for a block when they need one. Those who ask while a step runs are served together by the next, in groups of
8, 4, 2, 1 as they come: each size is one compiled program, made before anybody plays. So nobody waits for others who
don't ask, and a step of several costs less than theirs one after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from relic_jax.serve import protocol
from relic_jax.serve.metrics import Metrics
from relic_jax.serve.walks import Frames, Model, Walk, actions_of


@dataclasses.dataclass(frozen=True)
class Made:
    """A block: what came out, the newest control that it applied, when it was begun and done."""

    frames: Frames
    seq: int
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class _Request:
    walk: Walk
    control: Callable[[], protocol.Control | None]  # asked when the step begins
    made: asyncio.Future[Made]


class Engine:
    """Makes the blocks of all users of a model, up to `batch` in one step."""

    def __init__(self, model: Model, batch: int, metrics: Metrics):
        self.model, self.batch = model, batch
        self.warming = protocol.Warming(done=0, total=1, what="starting")
        self.ready = asyncio.Event()
        self._metrics = metrics
        self._steps = ThreadPoolExecutor(1, "steps")
        self._aside = ThreadPoolExecutor(batch + 1, "aside")
        self._requests: asyncio.Queue[_Request] = asyncio.Queue()

    async def run(self) -> None:
        """Warms up, then makes blocks until it is cancelled."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._steps, self._warm_up)
        self.ready.set()
        while True:
            group = [await self._requests.get()]
            while len(group) < self.batch and not self._requests.empty():
                group.append(self._requests.get_nowait())
            group = [request for request in group if not request.made.done()]  # whoever left needs none
            for part in _powers(group):
                await self._step(part)

    def close(self) -> None:
        """Waits for the step at hand."""
        self._steps.shutdown(cancel_futures=True)
        self._aside.shutdown(cancel_futures=True)

    async def play(self, walk: Walk, control: Callable[[], protocol.Control | None]) -> Made:
        """The next block of a walk."""
        request = _Request(walk, control, asyncio.get_running_loop().create_future())
        self._requests.put_nowait(request)
        self._metrics.queued.set(self._requests.qsize())
        return await request.made

    async def aside[T](self, function: Callable[..., T], *arguments: Any) -> T:
        """What isn't a step: opening, going back, saving, encoding."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, function, *arguments)

    def _warm_up(self) -> None:
        for done, total, what in self.model.warm_up(self.batch):
            self.warming = protocol.Warming(done=done, total=total, what=what)

    async def _step(self, group: list[_Request]) -> None:
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(self._steps, self._make, group)
        except Exception as error:  # a fault of the model's is its users', not the server's
            for request in group:
                if not request.made.done():
                    request.made.set_exception(error)
            return
        self._metrics.queued.set(self._requests.qsize())
        for request, block in zip(group, made, strict=True):
            with contextlib.suppress(asyncio.InvalidStateError):  # whoever left in the meantime
                request.made.set_result(block)

    def _make(self, group: list[_Request]) -> list[Made]:
        start = time.monotonic()
        controls = [request.control() for request in group]
        shape = self.model.shape
        actions = [actions_of(control, r.walk, shape) for control, r in zip(controls, group, strict=True)]
        frames = self.model.play([request.walk for request in group], actions)
        end = time.monotonic()
        self._metrics.block_seconds.labels(str(len(group))).observe(end - start)
        self._metrics.blocks.inc(len(group))
        return [Made(f, c.seq if c else 0, start, end) for f, c in zip(frames, controls, strict=True)]


def _powers(group: list[_Request]) -> list[list[_Request]]:
    """In parts of 1, 2, 4, 8 ..., the largest first."""
    parts = []
    while group:
        size = 1 << (len(group).bit_length() - 1)
        parts.append(group[:size])
        group = group[size:]
    return parts
