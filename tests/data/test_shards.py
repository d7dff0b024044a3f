import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from relic_jax.data import shards
from relic_jax.errors import InputError

FEATURES = tfds.features.FeaturesDict(
    {"video": tfds.features.Tensor(shape=(None, 2), dtype=np.uint8, encoding="bytes"), "seed": np.int64}
)
MADE = {"frames": 5}


def records(numbers):
    return ({"video": np.full((3, 2), n, np.uint8), "seed": n} for n in numbers)


def test_a_split_reads_back_through_tfds(tmp_path):
    split = shards.Split(tmp_path / "new" / "data", "train", 35)
    shards.claim(split, MADE)
    assert [len(s) for s in split.shards] == [16, 16, 3] and split.missing() == [0, 1, 2]
    for shard, numbers in enumerate(split.shards):
        split.write(shard, FEATURES, records(numbers))
    assert split.missing() == []
    shards.finish(split.directory, FEATURES, "test")
    source = tfds.builder_from_directory(split.directory).as_data_source("train")
    assert [source[i]["seed"] for i in range(len(source))] == list(range(35))
    np.testing.assert_array_equal(source[20]["video"], np.full((3, 2), 20))


def test_a_second_split_joins_the_first(tmp_path):
    for name, count in (("train", 3), ("val", 2)):
        split = shards.Split(tmp_path, name, count)
        shards.claim(split, MADE)
        split.write(0, FEATURES, records(range(count)))
        shards.finish(tmp_path, FEATURES, "test")
    splits = tfds.builder_from_directory(tmp_path).info.splits
    assert {name: splits[name].num_examples for name in splits} == {"train": 3, "val": 2}


def test_a_stopped_shard_leaves_nothing_and_whole_ones_stay(tmp_path):
    split = shards.Split(tmp_path, "train", 20)
    shards.claim(split, MADE)
    split.write(0, FEATURES, records(split.shards[0]))
    before = split.path(0).read_bytes()

    def stopped():
        yield from records([16, 17])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split.write(1, FEATURES, stopped())
    assert split.missing() == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([split.path(0).name, "plan.json"])
    shards.claim(split, MADE)
    assert split.missing() == [1] and split.path(0).read_bytes() == before


@pytest.mark.parametrize(("records_", "made"), [(21, MADE), (20, {"frames": 9}), (20, {})])
def test_a_split_made_otherwise_is_refused(tmp_path, records_, made):
    shards.claim(shards.Split(tmp_path, "train", 20), MADE)
    plan = (tmp_path / "plan.json").read_text()
    with pytest.raises(InputError, match="already holds a split 'train' with (records|frames)=.*, this one has"):
        shards.claim(shards.Split(tmp_path, "train", records_), made)
    assert (tmp_path / "plan.json").read_text() == plan


def test_a_directory_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/data: expected a directory that can be written to"):
        shards.claim(shards.Split(pathlib.Path(tmp_path / "file" / "data"), "train", 3), MADE)
