"""A server and its viewers, in real time: `launch.bench serve`.

The server is a process of its own, `launch.serve`. Viewers are pages without a browser (`serve.viewer`): they show
frames in time, acknowledge, and press a key every 0.77 s, so that presses fall anywhere in a block.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from relic_jax.errors import InputError
from relic_jax.serve.metrics import resident_bytes
from relic_jax.serve.scenes import Scenes
from relic_jax.serve.viewer import Seen, watch

PRESS_SECONDS = 0.77


def measure(arguments: Sequence[str], sessions: int, blocks: int, skip: int) -> dict[str, float]:
    """Figures of so many viewers at once.

    Args:
      arguments: of `launch.serve`. blocks: that each sees. skip: of these, before the figures begin.

    Raises:
      InputError: the server doesn't start.
    """
    command = [sys.executable, "-m", "launch.serve", *arguments, "--port=0", f"--batch={sessions}", "--waiting=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            if not line:
                raise InputError("launch.serve didn't start; what it said stands above")
            address = line.split()[0].replace("http", "ws", 1) + "ws"
            seen, memory = asyncio.run(_watch_all(address, sessions, blocks, skip, server.pid))
        finally:
            server.terminate()
    return {**_figures(seen, skip), **memory}


async def _watch_all(
    address: str, sessions: int, blocks: int, skip: int, server: int
) -> tuple[list[Seen], dict[str, float]]:
    scene = Scenes().all[0]
    watching = [
        asyncio.create_task(watch(address, blocks, scene.name, scene.prompt, PRESS_SECONDS + 0.05 * i))
        for i in range(sessions)
    ]
    memory: list[int] = []

    async def look() -> None:
        while True:
            memory.append(resident_bytes(server))
            await asyncio.sleep(1)

    looking = asyncio.create_task(look())
    seen = await asyncio.gather(*watching)
    looking.cancel()
    # By blocks: a viewer sees about one a second, and the model warms up before.
    after = memory[max(0, len(memory) - blocks + skip)] if memory else 0
    return seen, {"server_rss_bytes": memory[-1], "server_rss_growth": memory[-1] / max(after, 1)}


def _figures(seen: list[Seen], skip: int) -> dict[str, float]:
    between = np.concatenate([np.diff(one.arrivals[skip:]) for one in seen])
    late = np.concatenate([one.late[skip:] for one in seen])
    frames = np.concatenate([one.frames[skip:] for one in seen])
    making = np.concatenate([one.making[skip:] for one in seen])
    latencies = np.array([value for one in seen for value in one.latencies(skip)])
    lasted = sum(one.shown[-1] - one.shown[skip] for one in seen)
    figures = {"first_frame_s": float(np.mean([one.shown[0] - one.opened for one in seen]))}
    for name, values in (("arrival", between), ("latency", latencies), ("block", making)):
        for percent in (50, 95, 99):
            figures[f"{name}_p{percent}_s"] = float(np.percentile(values, percent))
    return figures | {
        "on_time": float(frames[late <= 0].sum() / frames.sum()),
        "stall_s": float(late.sum()),
        "watched_s": float(lasted),
        "viewer_fps": float(sum(sum(one.frames[skip:-1]) for one in seen) / lasted),
        "frame_bytes": float(sum(sum(one.sizes) for one in seen) / sum(sum(one.frames) for one in seen)),
    }
