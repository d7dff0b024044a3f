"""What the loop needs from the host: batches made ahead in a thread, and a writer that says nothing."""

from __future__ import annotations

import contextlib
import copy
import queue
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from relic_jax.train.run import Batches


class Prefetch:
    """Makes the next `depth` batches in a thread. `get_state` is that of the last batch handed out.

    A context manager: leaving it ends the thread.
    """

    def __init__(self, batches: Batches, depth: int = 2) -> None:
        self._state = copy.deepcopy(batches.get_state())
        self._queue: queue.Queue[tuple[Any, Any]] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(batches,), daemon=True)

    def __enter__(self) -> Prefetch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._thread.join()

    def __next__(self) -> dict[str, np.ndarray]:
        batch, state = self._queue.get()
        if isinstance(batch, BaseException):
            raise batch
        self._state = state
        return batch

    def get_state(self) -> Any:
        return self._state

    def _fill(self, batches: Batches) -> None:
        while not self._closed.is_set():
            try:
                item = (next(batches), copy.deepcopy(batches.get_state()))
            except BaseException as error:  # raised where the batch is wanted, which would wait for ever
                item = (error, None)
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    self._queue.put(item, timeout=0.1)
                    break
            if isinstance(item[0], BaseException):
                return


class Silent:
    """What stands in for `metrics.Writer` on all processes but the first."""

    def line(self, step: int, values: Mapping[str, float]) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
