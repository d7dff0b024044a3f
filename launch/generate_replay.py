"""A recording of the page's (relic_jax/serve) made again from its log, for `launch.generate --replay`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from relic_jax import outside
from relic_jax.errors import InputError
from relic_jax.models.bundle import Bundle
from relic_jax.stream.again import again
from relic_jax.stream.log import Log, Play


@dataclasses.dataclass
class Recording:
    """What is to be made again.

    Fields:
      blocks: which of the log's, in order. frames: in all of them. sha256: of these frames' bytes; None: unknown.
      made_with: versions and device then.
    """

    log: Log
    blocks: list[int]
    frames: int
    sha256: str | None
    made_with: dict[str, Any]
    seen: str = ""  # the sha256 of what `play` has given

    @classmethod
    def read(cls, path: str) -> Recording:
        """That of a log's file.

        Raises:
          InputError: it can't be read, or names what of it can't be.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise InputError(f"{path} is no JSON: {error}") from error
        log = Log.from_dict(values, path)
        made = [len(event.actions) for event in log.events if isinstance(event, Play)]
        recorded = values.get("recorded", {"blocks": list(range(len(made)))})
        try:
            blocks = [outside.seed(block, f"{path}: recorded.blocks") for block in recorded["blocks"]]
        except (TypeError, KeyError) as error:
            raise InputError(f"{path}: recorded has no list of blocks") from error
        if not blocks or blocks != sorted(set(blocks)) or blocks[-1] >= len(made):
            raise InputError(f"{path}: recorded.blocks are not ascending numbers below the log's {len(made)} blocks")
        return cls(log, blocks, 0, recorded.get("sha256"), values.get("versions") or {})

    def play(self, model: Bundle) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        """The frames of the recording, block by block; all before and between them are made too."""
        digest, wanted = hashlib.sha256(), set(self.blocks)
        for block, frames in enumerate(again(model, self.log)):
            if block in wanted:
                digest.update(np.ascontiguousarray(frames).tobytes())
                self.frames += len(frames)
                yield frames
            if block == self.blocks[-1]:
                break
        self.seen = digest.hexdigest()

    @property
    def identical(self) -> bool:
        """Whether all that was played is, bit for bit, what was recorded."""
        return self.seen == self.sha256
