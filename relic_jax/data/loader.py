"""Grain loaders: endless, shuffled by seed, deterministic, with a state that a checkpoint can hold.

Every epoch has an order of its own; a batch never depends on how it was read, and `set_state` goes on exactly where
`get_state` was called.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float

from relic_jax import outside
from relic_jax.data import balance
from relic_jax.data.clip import Clip, from_record
from relic_jax.errors import InputError
from relic_jax.parallel.part import WHOLE, Part

FIELDS = ("video", "rotations", "positions", "actions", "unit")
LATENT_FIELDS = ("latents", "rotations", "positions", "actions", "unit", "text")
TRAJECTORY_FIELDS = (*LATENT_FIELDS, "trajectory", "timesteps")
_READ_AHEAD = 2  # batches


class Records:
    """The decoded records of one split of a data set written by `shards`, by index.

    Raises:
      InputError: there is no data set at `directory`, it has several splits and none is named, or lacks the fields
        `expected`.
    """

    def __init__(self, directory: str | os.PathLike[str], split: str | None, expected: Sequence[str]):
        self._path = pathlib.Path(directory)
        try:
            builder = tfds.builder_from_directory(self._path)
        except Exception as error:  # TFDS has an error of its own for each of the files that may be missing
            raise InputError(
                f"{directory}: expected a data set made by launch.prepare_data (dataset_info.json, features.json), "
                "none is there"
            ) from error
        names = list(builder.info.splits)
        if split is None and len(names) == 1:
            split = names[0]
        if split not in names:
            raise InputError(f"{directory}: expected one of the splits {', '.join(names)}, got {split}")
        missing = [name for name in expected if name not in builder.info.features]
        if missing:
            raise InputError(
                f"{self._path / 'features.json'}: expected records with the fields {', '.join(expected)}; "
                f"{', '.join(missing)} did not come"
            )
        self.split = split
        self._source = builder.as_data_source(split)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(index)]

    def where(self, index: int) -> str:
        """What to call a record in an error."""
        return f"{self._path}, record {index}"


class Clips:
    """The clips of a data set, by index, checked and in OpenCV's convention.

    `fps` is the rate that a model is made for (`config.video.fps`): an action is a move a frame, so clips of another
    rate teach another speed.

    Raises:
      InputError: see `Records`, and `clip.from_record` for a record.
    """

    def __init__(self, directory: str | os.PathLike[str], split: str | None = None, fps: float | int | None = None):
        self._records = Records(directory, split, ("convention", "video"))
        self._fps = fps
        self.directory, self.split = directory, self._records.split

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Clip:
        return from_record(self._records[index], self._records.where(index), self._fps)

    def caption(self, index: int) -> str:
        """The caption alone."""
        return self._records[index]["caption"].decode()


class PartOfBatches:
    """One part of the rows of every batch; the state is that of whole batches, whoever reads them in whatever parts.

    Raises:
      InputError: the parts can't be equal.
    """

    def __init__(self, data: grain.MapDataset, batch: int, part: Part):
        if batch % part.count:
            raise InputError(f"a batch of {batch} can't be divided into {part.count} equal parts")
        self._batch = batch
        rows = data.batch(batch // part.count, drop_remainder=True)[part.index :: part.count]
        reading = grain.ReadOptions(num_threads=2, prefetch_buffer_size=_READ_AHEAD)
        self._iterator = iter(rows.to_iter_dataset(reading))

    def __iter__(self) -> "PartOfBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._iterator)

    def get_state(self) -> dict[str, int]:
        return {"next_index": self._iterator.get_state()["next_index"] * self._batch}

    def set_state(self, state: dict[str, int]) -> None:
        self._iterator.set_state({"next_index": state["next_index"] // self._batch})


def batches(
    directory: str | os.PathLike[str],
    *,
    batch: int,
    seed: int,
    frames: int,
    fields: Sequence[str] = FIELDS,
    split: str | None = None,
    workers: int = 0,
    part: Part = WHOLE,
) -> grain.DatasetIterator[dict[str, np.ndarray]] | PartOfBatches:
    """Random windows of clips.

    Args:
      batch: windows a batch. frames: of a window; its poses start at its own first frame, whose action is static.
      fields: which of `clip.Clip`'s come, with a leading batch axis.
      workers: processes that read, in a program run by absl; 0 reads in threads of this one.
      part: which rows of each batch to read; the batches are the same however many share in them.

    Returns:
      An endless iterator with `get_state()` (JSON types) and `set_state(state)`.

    Raises:
      InputError: no such data set, or a clip is shorter than `frames` (names it).
    """
    window = _ClipWindow(str(directory), frames, tuple(fields))
    return endless(Clips(directory, split), window, batch, seed, workers, part)


class Latents:
    """Encoded clips (`data.latents`) by index, each cut to its first `latents`; floats come as float32.

    Only a clip's start has a latent of one frame, so a window begins there; poses and actions are those of its
    4 (latents - 1) + 1 frames.

    Raises:
      InputError: no such data set, a clip is shorter than `latents`, or holds a number that is not finite.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        latents: int,
        *,
        fields: Sequence[str] = LATENT_FIELDS,
        split: str | None = None,
    ):
        self._records = Records(directory, split, fields)
        self._fields, self._latents = tuple(fields), latents
        first = self._records[0]
        stride = (len(first["actions"]) - 1) // max(len(first["latents"]) - 1, 1)
        self._frames = stride * (latents - 1) + 1

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        record, frames = self._records[index], self._frames
        count = len(record["latents"])
        if count < self._latents:
            raise InputError(
                f"{self._records.where(index)}: expected clips of {self._latents} latents, got one of {count}; "
                f"{frames} frames are wanted"
            )
        for name in self._fields:
            _check_floats(record[name], f"{self._records.where(index)}: field '{name}'")
        lengths = dict.fromkeys(("latents", "trajectory"), self._latents)
        lengths |= dict.fromkeys(("rotations", "positions", "actions"), frames)
        cut = {name: record[name][: lengths[name]] if name in lengths else record[name] for name in self._fields}
        return {name: np.float32(x) if np.asarray(x).dtype.kind == "f" else np.asarray(x) for name, x in cut.items()}

    def actions(self) -> Iterator[Float[np.ndarray, "T 13"]]:
        """The actions of every clip, in the same cut. Reads the whole data set."""
        return (self._records[index]["actions"][: self._frames] for index in range(len(self)))


def latent_batches(
    directory: str | os.PathLike[str],
    *,
    batch: int,
    seed: int,
    latents: int,
    fields: Sequence[str] = LATENT_FIELDS,
    balanced: bool = False,
    split: str | None = None,
    workers: int = 0,
    part: Part = WHOLE,
) -> grain.DatasetIterator[dict[str, np.ndarray]] | PartOfBatches:
    """Encoded clips, cut to `latents` as `Latents` does. Otherwise as `batches`.

    Args:
      fields: which come. balanced: clips with rare actions come more often (`balance.weights`).

    Raises:
      InputError: no such data set, or a clip is shorter than `latents`.
    """
    source = Latents(directory, latents, fields=fields, split=split)
    weights = balance.weights(balance.histogram(source.actions())) if balanced else None
    return endless(source, None, batch, seed, workers, part, weights)


def _check_floats(values: Any, name: str) -> None:
    values = np.asarray(values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        outside.array(values, name, ("latent",) if name.endswith("'latents'") else ("frame",))


@dataclasses.dataclass(frozen=True)
class _ClipWindow(grain.transforms.RandomMap):
    directory: str
    frames: int
    fields: tuple[str, ...]

    def random_map(self, clip: Clip, rng: np.random.Generator) -> dict[str, Any]:
        spare = clip.frames - self.frames
        if spare < 0:
            raise InputError(
                f"{self.directory}: expected clips of at least {self.frames} frames, got one of {clip.frames}"
            )
        record = clip.window(int(rng.integers(spare, endpoint=True)), self.frames).record()
        return {name: np.float32(record[name]) if name in ("unit", "fps") else record[name] for name in self.fields}


def endless(
    source: Any,
    transform: grain.transforms.Transformation | None,
    batch: int,
    seed: int,
    workers: int,
    part: Part,
    weights: Float[np.ndarray, "clips"] | None = None,
) -> grain.DatasetIterator[dict[str, np.ndarray]] | PartOfBatches:
    """Batches of a source's elements without end: `batches` and `latent_batches` say of which."""
    if weights is None:
        data = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    else:
        data = grain.MapDataset.source(balance.Drawn(source, weights, seed)).seed(seed)
    if transform is not None:
        data = data.apply(transform)
    if part.count > 1:
        return PartOfBatches(data, batch, part)
    # Threads read whole clips while a step computes; more than two only contend for Python's lock.
    reading = grain.ReadOptions(num_threads=2, prefetch_buffer_size=_READ_AHEAD * batch)
    data = data.to_iter_dataset(reading).batch(batch, drop_remainder=True)
    if workers:
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(data)
