"""Precision, names and RELIC's own leaves, there and back."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest

from relic_jax.models import weights
from relic_jax.train.checkpoint import Checkpoints
from tests.weights_convert.sources import CFG, MODEL, extras, leaves_of, read_source, write_source
from weights_convert import store
from weights_convert import to_torch as exports
from weights_convert.to_relic import WEIGHTS, to_relic
from weights_convert.to_torch import to_torch


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "wan")


def test_bfloat16_is_for_matrices(source, tmp_path):
    to_relic("m", source, tmp_path / "dst", model=MODEL, dtype="bfloat16", verify=True)
    tree = store.Reader(tmp_path / "dst" / WEIGHTS).leaves
    assert {leaf.rsplit(".")[-1] for leaf, x in tree.items() if x.dtype == ml_dtypes.bfloat16} == {"kernel"}
    expected = read_source(source)["blocks.1.ffn.0.weight"].T.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (leaves_of(tmp_path / "dst")["blocks.ffn.fc1.kernel"][1] == expected).all()


@pytest.mark.parametrize("layout", ["wan", "diffusers"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16], ids=["f32", "bf16", "f16"])
def test_weights_come_back_bit_for_bit_in_their_dtype(tmp_path, layout, dtype):
    source = write_source(tmp_path / "source", dtype=dtype, layout=layout)
    to_relic("m", source, tmp_path / "dst", model=MODEL, dtype="float32")
    done = to_torch(tmp_path / "dst", tmp_path / "back", model=MODEL, shard_bytes=30_000)
    before, after = read_source(source), read_source(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(after[k].dtype == dtype and after[k].tobytes() == before[k].tobytes() for k in before)
    assert done.layout == layout and done.extra == 0 and len(done.files) > 3
    index = json.loads((tmp_path / "back" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == before.keys()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in before.values())


def test_the_other_layout_and_back(source, tmp_path):
    """Wan's names to diffusers' names, and those again to Wan's: what a person does who wants the other form."""
    to_relic("m", source, tmp_path / "a", model=MODEL)
    to_torch(tmp_path / "a", tmp_path / "b", model=MODEL, layout="diffusers")
    to_relic("m", tmp_path / "b", tmp_path / "c", model=MODEL)
    assert json.loads((tmp_path / "c" / "manifest.json").read_text())["layout"] == "diffusers"
    to_torch(tmp_path / "c", tmp_path / "d", model=MODEL, layout="wan")
    before, after = read_source(source), read_source(tmp_path / "d")
    assert all(np.array_equal(after[k], before[k]) for k in before) and before.keys() == after.keys()


def test_an_interrupted_export_goes_on_where_it_stopped(source, tmp_path, monkeypatch):
    to_relic("m", source, tmp_path / "relic", model=MODEL)
    written, save = [], exports._save

    def stopping(file, shard, reader):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file.name)
        save(file, shard, reader)

    with monkeypatch.context() as patch:
        patch.setattr(exports, "_save", stopping)
        with pytest.raises(KeyboardInterrupt):
            to_torch(tmp_path / "relic", tmp_path / "back", model=MODEL, shard_bytes=50_000)
    assert not (tmp_path / "back").exists()
    monkeypatch.setattr(exports, "_save", lambda *job: written.append(job[0].name) or save(*job))
    done = to_torch(tmp_path / "relic", tmp_path / "back", model=MODEL, shard_bytes=50_000)
    assert sorted(written) == sorted(done.files) and len(written) > 2
    before, after = read_source(source), read_source(tmp_path / "back")
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_trained_weights_keep_relics_own_leaves(source, tmp_path):
    rng = np.random.default_rng(0)
    leaves = MODEL.leaves()
    params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), leaves)
    weights.save_safetensors(tmp_path / "trained.safetensors", params)
    done = to_torch(tmp_path / "trained.safetensors", tmp_path / "torch", model=MODEL)
    assert done.extra == len(extras()) == 8 + 4 * CFG.layers
    state = read_source(tmp_path / "torch")
    assert state.keys() - read_source(source).keys() == {t.source for t in extras()}
    projection = params["blocks"]["action"]["proj"]["kernel"]
    assert np.array_equal(state["relic.blocks.2.action.proj.weight"], projection[2].T)
    summary = to_relic("m", tmp_path / "torch", tmp_path / "again", model=MODEL)
    assert summary.initialised == 0
    again = leaves_of(tmp_path / "again")
    assert all((again[name] == value).all() for name, value in weights.leaves(params))


def test_a_training_run_is_exported_by_its_average(tmp_path):
    rng = np.random.default_rng(0)
    leaves = MODEL.leaves()
    trees = {
        name: jax.tree.map(lambda x: jax.numpy.asarray(rng.standard_normal(x.shape, np.float32)), leaves)
        for name in ("params", "ema")
    }
    (tmp_path / "run").mkdir()
    checkpoints = Checkpoints(tmp_path / "run", CFG, keep=1)
    checkpoints.save(7, trees | {"opt_state": {"count": jax.numpy.zeros(())}}, {"next": 3})
    checkpoints.close()
    to_torch(tmp_path / "run", tmp_path / "torch", model=MODEL, dtype="bfloat16")
    state = read_source(tmp_path / "torch")
    expected = trees["ema"]["blocks"]["cross_attention"]["v"]["kernel"][1].T.astype(jax.numpy.bfloat16)
    assert np.array_equal(state["blocks.1.cross_attn.v.weight"], expected)


def test_initial_leaves_close_the_doors_and_are_the_same_every_time(source, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    summary = to_relic("m", source, first, model=MODEL)
    to_relic("m", source, second, model=MODEL)
    assert summary.initialised == len(extras())
    a, b = leaves_of(first), leaves_of(second)
    assert all((a[name] == b[name]).all() for name in a)
    assert not a["blocks.action.proj.kernel"].any() and not a["blocks.pose.proj.bias"].any()
    width = np.sqrt(6 / (52 + CFG.cond_dim))
    assert 0.8 * width < np.abs(a["conditioner.action.fc1.kernel"]).max() <= width
