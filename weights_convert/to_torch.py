"""A checkpoint of this project to the files that PyTorch programs load, in either layout.

Weights that were not trained come out as they went in, bit for bit and in their own dtypes: the manifest of
`to_relic` remembers them. RELIC's own leaves go along when they were trained, named `relic. ...` (`tables`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy

from relic_jax.errors import InputError
from relic_jax.models import weights
from weights_convert.partial import NoSpaceError, check_destination, partial, write_json
from weights_convert.progress import progress
from weights_convert.source import DTYPES
from weights_convert.store import Reader, SafetensorsReader
from weights_convert.table import Tensor
from weights_convert.tables import Layout, Model

SHARD_BYTES = 5_000_000_000


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written: the layout, tensors, RELIC's own among them, files of weights."""

    layout: str
    tensors: int
    extra: int
    files: tuple[str, ...]


def to_torch(
    src: Path,
    dst: Path,
    *,
    model: Model,
    dtype: str | None = None,
    layout: str = "auto",
    shard_bytes: int = SHARD_BYTES,
) -> Exported:
    """Writes safetensors shards with index and config.json, or the one .pth file that the layout has.

    Args:
      src: folder of `to_relic`, folder of a training run (its moving average), or a safetensors file of ours.
      dst: a folder that doesn't exist.
      model: what the weights are of.
      dtype: float32 or bfloat16; None keeps what a tensor had when it came, or has now if it was never converted.
      layout: a name in `model.layouts`; auto is the one it came in, or the first.
      shard_bytes: the largest shard.

    Raises:
      InputError: the weights don't fit the model, or the destination can't be written.
    """
    check_destination(dst)
    manifest = _manifest(src)
    layout = manifest.get("layout", next(iter(model.layouts))) if layout == "auto" else layout
    reader = open_weights(src)
    weights.check_fits(reader.leaves, model.leaves(), str(src))
    tensors = _trained(model.table(layout), reader)
    kept = manifest.get("source_dtypes", {})
    jobs = [_Job(x, dtype or kept.get(x.place) or reader.leaves[x.target].dtype.name) for x in tensors]
    total = sum(job.bytes for job in jobs)
    form = model.layouts[layout]
    shards = [jobs] if form.is_pickle else _split(jobs, shard_bytes)
    names = _file_names(form, len(shards))
    key = {
        "source": str(src.absolute()),
        "changed": reader.changed,
        "layout": layout,
        "shards": _contents(names, shards),
    }
    with partial(dst, key, total) as work, progress("exporting", total) as bar:
        for name, shard in zip(names, shards, strict=True):
            if name not in work.done:
                _save(work.folder / name, shard, reader)
                work.record(name)
            bar.update(sum(job.bytes for job in shard))
        if len(names) > 1:
            places = {job.tensor.source: name for name, shard in zip(names, shards, strict=True) for job in shard}
            index = {"metadata": {"total_size": total}, "weight_map": places}
            write_json(work.folder / f"{form.file}.safetensors.index.json", index)
        if form.config is not None:
            write_json(work.folder / "config.json", form.config(model.config))
    extra = sum(tensor.row.initial is not None for tensor in tensors)
    return Exported(layout, len(tensors), extra, tuple(names))


def open_weights(src: Path) -> Reader | SafetensorsReader:
    """The weights of a converted or trained folder, its newest step, or of a safetensors file of this project.

    Raises:
      InputError: there are none.
    """
    if src.is_file():
        return SafetensorsReader(src)
    steps = ocp.utils.checkpoint_steps((src / "checkpoints").absolute()) if (src / "checkpoints").is_dir() else []
    if not steps:
        raise InputError(f"{src} holds no weights; expected a folder of to-relic or of a training run, or a file")
    return Reader((src / "checkpoints" / str(max(steps)) / "ema").absolute())


@dataclasses.dataclass(frozen=True)
class _Job:
    """A tensor to be written and the dtype that it will have."""

    tensor: Tensor
    dtype: str

    @property
    def bytes(self) -> int:
        return math.prod(self.tensor.shape) * DTYPES[self.dtype].itemsize


def _manifest(src: Path) -> dict[str, Any]:
    file = src / "manifest.json"
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise InputError(f"{file} is not readable: {error}") from error


def _trained(tensors: list[Tensor], reader: Reader | SafetensorsReader) -> list[Tensor]:
    """All tensors if RELIC's own leaves were trained; else those of the published model."""
    for tensor in tensors:
        if tensor.row.initial is not None:
            value = reader.read(tensor.target, tensor.index)
            if not np.array_equal(value, tensor.row.initial(value.shape).astype(value.dtype)):
                return tensors
    return [tensor for tensor in tensors if tensor.row.initial is None]


def _split(jobs: list[_Job], limit: int) -> list[list[_Job]]:
    """Shards in the table's order, none above the limit unless one tensor is."""
    shards, size = [[]], 0
    for job in jobs:
        if shards[-1] and size + job.bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(job)
        size += job.bytes
    return shards


def _file_names(form: Layout, count: int) -> list[str]:
    if form.is_pickle:
        return [form.file]
    if count == 1:
        return [f"{form.file}.safetensors"]
    return [f"{form.file}-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def _contents(names: list[str], shards: list[list[_Job]]) -> dict[str, dict[str, str]]:
    return {name: {job.tensor.source: job.dtype for job in shard} for name, shard in zip(names, shards, strict=True)}


def _save(file: Path, shard: list[_Job], reader: Reader | SafetensorsReader) -> None:
    arrays = {}
    for job in shard:
        value = reader.read(job.tensor.target, job.tensor.index).astype(DTYPES[job.dtype])
        arrays[job.tensor.source] = np.ascontiguousarray(job.tensor.row.transform.to_torch(value))
    try:
        if file.suffix == ".pth":
            _save_pickle(file, arrays)
        else:
            safetensors.numpy.save_file(arrays, file, metadata={"format": "pt"})
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise NoSpaceError(f"{file} can't be written: {str(error).splitlines()[0]}") from error


def _save_pickle(file: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        import torch
    except ImportError as error:
        raise InputError(f'writing {file.name} takes PyTorch: pip install "relic-jax[convert]"') from error

    def tensor(array: np.ndarray) -> torch.Tensor:
        if array.dtype == DTYPES["bfloat16"]:  # NumPy has none of its own
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    torch.save({name: tensor(array) for name, array in arrays.items()}, file)
