import dataclasses
import json

import grain
import numpy as np
import pytest
from absl import flags

from relic_jax.data import builder, loader, shards
from relic_jax.data.clip import Clip
from relic_jax.errors import InputError
from relic_jax.parallel.part import Part

CLIPS, FRAMES = 10, 13
RECIPE = builder.Recipe(frames=FRAMES, height=8, width=16, seed=0)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [RECIPE.clip(i) for i in range(CLIPS)]


@pytest.fixture(scope="module")
def data(tmp_path_factory, clips) -> str:
    split = shards.Split(tmp_path_factory.mktemp("clips"), "train", CLIPS)
    return write(split, clips)


def write(split: shards.Split, clips: list[Clip], **changes: object) -> str:
    features = builder.features(8, 16)
    shards.claim(split, {})
    split.write(0, features, [dataclasses.replace(clip, **changes).record() for clip in clips])
    shards.finish(split.directory, features, "test")
    return str(split.directory)


def take(iterator, count: int) -> list[dict[str, np.ndarray]]:
    return [next(iterator) for _ in range(count)]


def same(ours, theirs) -> bool:
    return all(np.array_equal(a[k], b[k]) for a, b in zip(ours, theirs, strict=True) for k in a)


def test_clips_by_index(data, clips):
    read = loader.Clips(data)
    assert len(read) == CLIPS and read.split == "train"
    np.testing.assert_array_equal(read[3].video, clips[3].video)
    np.testing.assert_array_equal(read[3].start_position, clips[3].start_position)
    assert read.caption(3) == read[3].caption == clips[3].caption


def test_batches_are_windows_of_the_clips(data, clips):
    batch = next(loader.batches(data, batch=4, seed=0, frames=5, fields=(*loader.FIELDS, "seed")))
    shapes = {name: (array.shape, array.dtype.name) for name, array in batch.items()}
    assert shapes == {
        "video": ((4, 5, 8, 16, 3), "uint8"),
        "rotations": ((4, 5, 3, 3), "float32"),
        "positions": ((4, 5, 3), "float32"),
        "actions": ((4, 5, 13), "float32"),
        "unit": ((4,), "float32"),
        "seed": ((4,), "int64"),
    }
    for row, seed in enumerate(batch["seed"]):
        clip = clips[seed]
        starts = [s for s in range(FRAMES - 4) if np.array_equal(clip.video[s : s + 5], batch["video"][row])]
        assert starts
        windows = [clip.window(start, 5) for start in starts]
        assert any(np.array_equal(w.actions, batch["actions"][row]) for w in windows)
    assert (batch["actions"][:, 0, -1] == 1).all() and not batch["positions"][:, 0].any()


def test_order_follows_the_seed(data):
    def batches(seed):
        return take(loader.batches(data, batch=3, seed=seed, frames=5), 8)

    assert same(batches(1), batches(1))
    assert not same(batches(1), batches(2))


def test_every_epoch_has_every_clip_in_another_order(data):
    epochs = [
        [int(s) for batch in take(iterator, CLIPS // 2) for s in batch["seed"]]
        for iterator in [loader.batches(data, batch=2, seed=0, frames=FRAMES, fields=("seed",))]
        for _ in range(3)
    ]
    assert all(sorted(epoch) == list(range(CLIPS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_windows_differ_between_epochs(data):
    iterator = loader.batches(data, batch=CLIPS, seed=0, frames=5, fields=("seed", "video"))
    first, second = take(iterator, 2)
    order = np.argsort(first["seed"]), np.argsort(second["seed"])
    assert not np.array_equal(first["video"][order[0]], second["video"][order[1]])


def test_state_goes_on_exactly(data):
    iterator = loader.batches(data, batch=4, seed=0, frames=5)
    take(iterator, 3)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 6)  # past the end of an epoch
    iterator.set_state(state)
    assert same(take(iterator, 6), expected)
    fresh = loader.batches(data, batch=4, seed=0, frames=5)
    fresh.set_state(state)
    assert same(take(fresh, 6), expected)


def test_short_clips_are_refused(data):
    with pytest.raises(InputError, match=f"expected clips of at least 17 frames, got one of {FRAMES}"):
        next(loader.batches(data, batch=4, seed=0, frames=17))


def test_a_missing_data_set_is_said(tmp_path):
    with pytest.raises(InputError, match="expected a data set made by launch.prepare_data"):
        loader.Clips(tmp_path / "nowhere")


def test_several_splits_need_a_name(tmp_path, clips):
    for name in ("train", "val"):
        write(shards.Split(tmp_path, name, 2), clips[:2])
    with pytest.raises(InputError, match="expected one of the splits train, val, got None"):
        loader.Clips(tmp_path)
    assert len(loader.Clips(tmp_path, "val")) == 2


def test_a_data_set_without_convention_is_refused(tmp_path, clips):
    unnamed = write(shards.Split(tmp_path / "unnamed", "train", 2), clips[:2], convention="")
    with pytest.raises(InputError, match="unnamed, record 1: expected a field 'convention'"):
        loader.Clips(unnamed)[1]
    with pytest.raises(InputError, match="field 'convention'"):
        next(loader.batches(unnamed, batch=1, seed=0, frames=5))
    split = shards.Split(tmp_path / "without", "train", 2)
    features = type(builder.features(8, 16))({k: v for k, v in builder.features(8, 16).items() if k != "convention"})
    shards.claim(split, {})
    split.write(0, features, [{k: v for k, v in c.record().items() if k != "convention"} for c in clips[:2]])
    shards.finish(split.directory, features, "test")
    with pytest.raises(InputError, match="features.json: expected records with the fields .*; convention did not come"):
        loader.Clips(split.directory)


@pytest.mark.slow
def test_processes_read_the_same_batches(data):
    flags.FLAGS.mark_as_parsed()  # Grain's processes want absl's flags, which the launch programs parse
    here, there = (loader.batches(data, batch=4, seed=0, frames=5, workers=workers) for workers in (0, 1))
    assert same(take(here, 4), take(there, 4))


@pytest.mark.parametrize("balanced", [False, True])
def test_parts_are_the_rows_of_the_whole_batches_and_go_on_in_other_parts(balanced):
    def iterator(index, count):
        weights = np.arange(1, 8) / 28 if balanced else None
        numbers = [{"number": np.int64(i)} for i in range(7)]
        return loader.endless(numbers, _Marked(), 4, 5, 0, Part(index, count), weights)

    def joined(parts, steps):
        return [np.concatenate([next(part)["number"] for part in parts]).tolist() for _ in range(steps)]

    whole = joined([iterator(0, 1)], 9)
    four = [iterator(index, 4) for index in range(4)]
    assert joined(four, 4) == whole[:4]
    states = [part.get_state() for part in four]
    assert states == [states[0]] * 4 and isinstance(states[0]["next_index"], int)
    for count in (1, 2, 4):
        again = [iterator(index, count) for index in range(count)]
        for part in again:
            part.set_state(states[0])
        assert joined(again, 5) == whole[4:], count


def test_parts_must_be_equal():
    with pytest.raises(InputError, match="a batch of 4 can't be divided into 3 equal parts"):
        loader.endless([0], None, 4, 5, 0, Part(0, 3))


class _Marked(grain.transforms.RandomMap):
    """The number, and a random one of its own."""

    def random_map(self, element, rng):
        return {"number": np.stack([element["number"], rng.integers(1000)])}
