"""What the loop needs from the host: batches made ahead in a thread, and signals that wait for a step's end.

On several processes also: which rows of a batch are this one's, how all rows become one array, and how arrays that
lie on all of them come back.
"""

from __future__ import annotations

import contextlib
import copy
import queue
import signal
import threading
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from relic_jax.data.part import WHOLE, Part
from relic_jax.errors import InputError
from relic_jax.parallel.rules import SERVING
from relic_jax.train.stage import Batches


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


class Interruption:
    """While it is entered, SIGTERM and SIGINT only set `signal`; a second one acts as it always does."""

    signal: int = 0

    def __enter__(self) -> Interruption:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.signal = number
        self.__exit__()


def part_of_batch(mesh: Mesh | None, batch: int) -> Part:
    """The rows of a batch that this process reads: those that its devices work on.

    Processes that divide the tokens of the same samples read the same rows.

    Raises:
      InputError: the mesh gives the processes unequal shares.
    """
    if mesh is None or jax.process_count() == 1:
        return WHOLE
    spans: dict[int, set[tuple[int, int]]] = {}
    for device, (rows,) in _of_batch(mesh).devices_indices_map((batch,)).items():
        start, stop, _ = rows.indices(batch)
        spans.setdefault(device.process_index, set()).add((start, stop))
    first = {process: min(span)[0] for process, span in spans.items()}
    count = {process: sum(stop - start for start, stop in span) for process, span in spans.items()}
    own = count[jax.process_index()]
    contiguous = all(max(span)[1] - min(span)[0] == count[process] for process, span in spans.items())
    if not contiguous or set(count.values()) != {own} or any(start % own for start in first.values()):
        sizes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
        raise InputError(
            f"mesh {sizes} does not fit {jax.process_count()} processes of {jax.local_device_count()} device(s): "
            "of seq x tensor and a process's devices one must divide the other"
        )
    return Part(first[jax.process_index()] // own, batch // own)


def place_batch(mesh: Mesh | None, batch: dict[str, np.ndarray], part: Part) -> dict[str, Any]:
    """One array over all processes from the rows that each has; alone, the batch as it is."""
    if mesh is None or jax.process_count() == 1:
        return batch
    return {
        name: jax.make_array_from_process_local_data(_of_batch(mesh), rows, (len(rows) * part.count, *rows.shape[1:]))
        for name, rows in batch.items()
    }


def place_like[T](tree: T, like: T) -> T:
    """A tree that lies where another says, though some of its leaves were made by this process alone."""
    if jax.process_count() == 1:
        return tree

    def place(leaf: Any, where: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
        if where.sharding is None or isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, where.sharding, lambda index: whole[index])

    return jax.tree.map(place, tree, like)


def everywhere[T](tree: T) -> T:
    """Arrays of which every process has the same, as a program that runs on all of them takes them."""
    return tree if jax.process_count() == 1 else jax.tree.map(np.asarray, tree)


def fetch(x: jax.Array) -> np.ndarray:
    """An array's whole value, wherever it lies; every process must ask."""
    whole = x.is_fully_addressable or x.is_fully_replicated
    return np.asarray(x if whole else multihost_utils.process_allgather(x, tiled=True))


class Silent:
    """What stands in for `metrics.Writer` on all processes but the first."""

    def line(self, step: int, values: Mapping[str, float]) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _of_batch(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(SERVING.batch))
