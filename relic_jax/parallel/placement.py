"""Several processes, one batch: which rows are this one's, how all rows become one array, how arrays come back."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from relic_jax.errors import InputError
from relic_jax.parallel.part import WHOLE, Part
from relic_jax.parallel.rules import SERVING


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


def fetch(x: jax.Array) -> np.ndarray:
    """An array's whole value, wherever it lies; every process must ask."""
    whole = x.is_fully_addressable or x.is_fully_replicated
    return np.asarray(x if whole else multihost_utils.process_allgather(x, tiled=True))


def _of_batch(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(SERVING.batch))
