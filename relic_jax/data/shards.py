"""Data sets on disk: TFDS features in array_record shards, without TensorFlow.

A shard is written to a temporary name and renamed when it is whole, so a run that was stopped goes on with the shards
that are missing. `tfds.builder_from_directory` reads the result, as `loader` does.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import array_record.python.array_record_module as array_record
import tensorflow_datasets as tfds

from relic_jax import files
from relic_jax.errors import InputError
from relic_jax.parallel.part import WHOLE, Part

SHARD_RECORDS = 16
_PLAN = "plan.json"
_SAMPLE = 4096  # bytes
# One record a group, so that a clip is read without its neighbours.
_WRITER_OPTIONS = "group_size:1"


@dataclasses.dataclass(frozen=True)
class Split:
    """The files of one split of `records` records, SHARD_RECORDS in each but the last."""

    directory: pathlib.Path
    name: str
    records: int

    @property
    def shards(self) -> list[range]:
        """The numbers of the records in each shard."""
        every = range(self.records)
        return [every[i : i + SHARD_RECORDS] for i in range(0, self.records, SHARD_RECORDS)]

    def path(self, shard: int) -> pathlib.Path:
        return self.directory / f"clips-{self.name}.array_record-{shard:05d}-of-{len(self.shards):05d}"

    def missing(self, part: Part = WHOLE) -> list[int]:
        """The shards still to be written, or those of them that fall to one of several processes."""
        every = range(part.index, len(self.shards), part.count)
        return [shard for shard in every if not self.path(shard).exists()]

    def write(self, shard: int, features: tfds.features.FeaturesDict, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes a shard, which has its name only when it is whole."""
        path = self.path(shard)
        temporary = files.temporary(path)
        try:
            writer = array_record.ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
            for record in records:
                writer.write(features.serialize_example(record))
            writer.close()
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)


def claim(split: Split, made: Mapping[str, Any]) -> None:
    """Notes in the directory how a split is made, so that a second run neither mixes data nor makes them twice.

    Raises:
      InputError: the directory can't be written to, or holds this split made differently.
    """
    plan = json.loads(json.dumps({"records": split.records, **made}))
    try:
        split.directory.mkdir(parents=True, exist_ok=True)
        plans = _plans(split.directory)
        old = plans.get(split.name, plan)
        for key in sorted(plan.keys() | old.keys()):
            if old.get(key) != plan.get(key):
                raise InputError(
                    f"{split.directory} already holds a split '{split.name}' with {key}={old.get(key)!r}, this one has "
                    f"{key}={plan.get(key)!r}; choose another directory or split"
                )
        path = split.directory / _PLAN
        temporary = path.with_name(f".{_PLAN}.{uuid.uuid4().hex}.tmp")  # processes on several hosts may do this at once
        temporary.write_text(json.dumps(plans | {split.name: plan}, indent=1) + "\n")
        temporary.rename(path)
    except OSError as error:
        raise InputError(
            f"{split.directory}: expected a directory that can be written to, got: {error.strerror}"
        ) from error


def finish(directory: pathlib.Path, features: tfds.features.FeaturesDict, description: str) -> None:
    """Writes TFDS's dataset_info.json and features.json of all splits that are whole."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=directory,
        dataset_name="clips",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        filetype_suffix="array_record",
    )
    splits = [Split(directory, name, plan["records"]) for name, plan in _plans(directory).items()]
    infos = [
        tfds.core.SplitInfo(
            name=split.name,
            shard_lengths=[len(shard) for shard in split.shards],
            num_bytes=sum(split.path(i).stat().st_size for i in range(len(split.shards))),
            filename_template=template,
        )
        for split in splits
        if not split.missing()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        split_infos=infos,
        filename_template=template,
        version="1.0.0",
        check_data=False,
        description=description,
    )


def fingerprint(directory: str | os.PathLike[str]) -> str:
    """Tells data sets apart wherever they lie: of every shard its name, size, first and last bytes.

    Shards are compressed, so other clips differ in size already; reading terabytes to be surer is not worth it. Empty
    where there are no shards.
    """
    digest, found = hashlib.sha256(), sorted(pathlib.Path(directory).glob("[!.]*array_record*"))
    for path in found:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{path.name} {size} ".encode())
            for start in (0, max(size - _SAMPLE, 0)):
                file.seek(start)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16] if found else ""


def _plans(directory: pathlib.Path) -> dict[str, Any]:
    path = directory / _PLAN
    return json.loads(path.read_text()) if path.exists() else {}
