"""Where converted weights lie: an Orbax checkpoint that is written and read a layer at a time.

Orbax writes whole arrays; a leaf of the 14B model, 40 layers stacked, is larger than a published shard.
So the arrays (Zarr, one folder a leaf, a chunk never more than one layer) and the description of the tree
(`_METADATA`) are written here, and restored by Orbax like any other checkpoint, with any sharding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import tensorstore as ts

from relic_jax.errors import InputError
from relic_jax.models import weights
from relic_jax.models.module import Params
from weights_convert.partial import NoSpaceError
from weights_convert.source import DTYPES, SAFETENSORS_DTYPES
from weights_convert.table import Shape

CHUNK_BYTES = 64 << 20  # a host that loads its part of a matrix reads little of its neighbours'


def write_tree(folder: Path, leaves: Mapping[str, Shape]) -> None:
    """Describes the tree to Orbax; the arrays themselves are `Writer`'s."""
    entries = {}
    for name, shape in leaves.items():
        keys = name.split(".")
        entries[str(tuple(keys))] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in keys],  # 2: a dict's
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False, "write_shape": list(shape)},
        }
    tree = {
        "tree_metadata": entries,
        "use_ocdbt": False,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }
    (folder / "_METADATA").write_text(json.dumps(tree))


class Writer:
    """Fills the arrays of a checkpoint in `folder`."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._open: dict[str, ts.TensorStore] = {}

    def write(self, name: str, shape: Shape, index: int | None, value: np.ndarray) -> None:
        """Writes a leaf of this shape, or entry `index` of its leading axis; on disk when this returns.

        Raises:
          NoSpaceError: the disk is full or the folder can't be written to.
        """
        try:
            if name not in self._open:
                self._open[name] = _create(self._folder / name, shape, value.dtype, stacked=index is not None)
            array = self._open[name]
            place = array if index is None else array[index]
            place.write(np.ascontiguousarray(value), can_reference_source_data_indefinitely=True).result()
        except (OSError, ValueError) as error:
            raise NoSpaceError(f"{self._folder} can't be written: {str(error).splitlines()[0]}") from error


class Reader:
    """Reads the arrays of an Orbax checkpoint, of `Writer` or of a training run."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._open: dict[str, ts.TensorStore] = {}
        try:
            self._packed = json.loads((folder / "_METADATA").read_text())["use_ocdbt"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder} is not an Orbax checkpoint") from error
        tree = ocp.StandardCheckpointHandler().metadata(folder).tree
        self.leaves: dict[str, Any] = dict(weights.leaves(tree))  # with shape and dtype
        self.changed = (folder / "_METADATA").stat().st_mtime_ns

    def read(self, name: str, index: int | None) -> np.ndarray:
        """A leaf, or entry `index` of its leading axis."""
        if name not in self._open:
            if self._packed:
                store = {"driver": "ocdbt", "base": self._folder.as_uri() + "/", "path": f"{name}/"}
            else:
                store = _file(self._folder / name)
            self._open[name] = ts.open({"driver": "zarr", "kvstore": store}, read=True, open=True).result()
        array = self._open[name]
        return (array if index is None else array[index]).read().result()


class SafetensorsReader:
    """Reads the parameters in a safetensors file of this project in the same way."""

    def __init__(self, file: Path):
        try:
            self._file = safetensors.safe_open(file, framework="np")
        except safetensors.SafetensorError as error:
            raise InputError(f"{file} is not a readable safetensors file: {error}") from error
        self.changed = file.stat().st_mtime_ns
        slices = {name: self._file.get_slice(name) for name in self._file.keys()}
        self.leaves = {
            name: jax.ShapeDtypeStruct(tuple(x.get_shape()), SAFETENSORS_DTYPES[x.get_dtype()])
            for name, x in slices.items()
        }

    def read(self, name: str, index: int | None) -> np.ndarray:
        """A leaf, or entry `index` of its leading axis."""
        return self._file.get_tensor(name) if index is None else self._file.get_slice(name)[index]


def load(folder: Path, expected: Params, sharding: Any = None) -> Params:
    """The parameters, each host reading only what its devices hold.

    Args:
      folder: an Orbax checkpoint.
      expected: tree of leaves with `shape` and `dtype` (`models.module.abstract`).
      sharding: a `jax.sharding.Sharding` for all leaves, or a tree of them; None is the first device.

    Raises:
      InputError: names the first leaf that doesn't fit and both shapes.
    """
    handler = ocp.StandardCheckpointHandler()
    weights.check_fits(handler.metadata(folder).tree, expected, str(folder))
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, expected)
    target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), expected, sharding)
    return handler.restore(folder, args=ocp.args.StandardRestore(target))


def _create(folder: Path, shape: Shape, dtype: np.dtype, *, stacked: bool) -> ts.TensorStore:
    name = "bfloat16" if dtype == DTYPES["bfloat16"] else np.dtype(dtype).str
    metadata = {"shape": shape, "chunks": chunks(shape, dtype.itemsize, stacked=stacked), "dtype": name}
    spec = {
        "driver": "zarr",
        "kvstore": _file(folder),
        # Weights hardly compress, and uncompressed they load faster.
        "metadata": metadata | {"compressor": None, "fill_value": None},
        "store_data_equal_to_fill_value": True,
    }
    return ts.open(spec, create=True, open=True).result()


def chunks(shape: Shape, itemsize: int, *, stacked: bool) -> list[int]:
    """The sides of the pieces that an array is stored in: halves of the longest side until they are small."""
    sides = [1, *shape[1:]] if stacked else list(shape)
    while np.prod(sides) * itemsize > CHUNK_BYTES:
        axis = int(np.argmax(sides))
        sides[axis] = -(-sides[axis] // 2)
    return [max(size, 1) for size in sides]


def _file(folder: Path) -> dict[str, str]:
    return {"driver": "file", "path": f"{folder}/"}
