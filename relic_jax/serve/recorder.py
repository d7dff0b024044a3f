"""A recording: the frames that were sent as an MP4, and a log that makes them again."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import tempfile
import threading
from pathlib import Path
from typing import Any

import jax

from relic_jax import video
from relic_jax.serve.walks import Frames, Shape, Walk


class Recorder:
    """Of one user. Encodes as blocks come; `finish` or `close` it.

    A user may leave while a block is encoded in a thread: closing an encoder that encodes crashes, so one thing is done
    at a time, and what comes after the end is nothing.
    """

    def __init__(self, shape: Shape):
        self._shape = shape
        self._lock = threading.RLock()
        self._closed = False
        self._stack = contextlib.ExitStack()
        self._path = Path(self._stack.enter_context(tempfile.TemporaryDirectory())) / "recording.mp4"
        self._writing = self._stack.enter_context(contextlib.ExitStack())
        self._writer = self._writing.enter_context(video.video_writer(self._path, shape.fps))
        self._hash = hashlib.sha256()
        self._blocks: list[int] = []
        self._poses: list[dict[str, Any]] = []
        self.frames = 0

    @property
    def seconds(self) -> float:
        return self.frames / self._shape.fps

    def add(self, walk: Walk, frames: Frames) -> None:
        """A block of the walk, the newest that it has made."""
        with self._lock:
            if self._closed:
                return
            self._writer.write(frames)
            self._hash.update(frames.tobytes())
            self._blocks.append(walk.made - 1)
            self.frames += len(frames)
            for rotation, position in zip(*walk.poses(), strict=True):
                pose = {"rotation": rotation.reshape(-1), "position": position}
                self._poses.append({name: [round(float(x), 6) for x in values] for name, values in pose.items()})

    def finish(self, walk: Walk, model: str) -> tuple[bytes, bytes]:
        """The MP4 and the log, of a recording that has frames."""
        with self._lock:
            self._writing.close()
            film = self._path.read_bytes()
            self.close()
        recorded = {"blocks": self._blocks, "frames": self.frames, "sha256": self._hash.hexdigest()}
        recorded["poses"] = self._poses
        log = {**walk.log(), "model": model, "versions": versions(), "recorded": recorded}
        return film, json.dumps(log, indent=1).encode()

    def close(self) -> None:
        """Leaves nothing behind."""
        with self._lock, contextlib.suppress(ValueError):  # of a video without a frame
            self._closed = True
            self._stack.close()


def versions() -> dict[str, Any]:
    """What bits depend on beside the log."""
    names = ("relic-jax", "jax", "jaxlib")
    device = jax.devices()[0]
    return {name: importlib.metadata.version(name) for name in names} | {
        "python": platform.python_version(),
        "device": device.device_kind,
        "platform": device.platform,
    }
