"""A run is carried elsewhere in small files, and goes on there."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from relic_jax.errors import InputError
from relic_jax.train import checkpoint, compact, loop, metrics, run
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.teacher import TeacherConfig
from tests.small import frames_of
from tests.train import encoded

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps, and what `compact` made of it when it had two."""
    folder = tmp_path_factory.mktemp("compact")
    encoded.write(folder, encoded.model(), 6)
    data = {"vae": str(folder / "vae.safetensors"), "data": str(folder / "clips"), "data_val": str(folder / "clips")}
    cfg = TeacherConfig(
        stage="teacher", model=encoded.model(), steps=4, batch=2, frames=frames_of(6), ema=0.9, log_every=1,
        sample_every=4, save_every=2, optimizer=OptimizerConfig(kind="muon", learning_rate=1e-2, warmup=1), **data,
    )  # fmt: skip
    straight = encoded.trains(cfg, folder)
    half = folder / "half"
    half.mkdir()
    (half / "config.json").write_text((straight / "config.json").read_text())
    (straight / "checkpoints" / "2").rename(half / "moved")
    (half / "checkpoints").mkdir()
    (half / "moved").rename(half / "checkpoints" / "2")
    assert compact.write(half, folder / "small") == 2
    return cfg, straight, half, folder / "small"


def test_a_run_goes_on_where_it_was(trained, tmp_path):
    cfg, straight, half, small = trained
    assert compact.read(small, tmp_path / "there") == 2
    for which, equal in (("params", 0), ("ema", 2**-8)):
        want, got = (checkpoint.read(str(workdir), which)[1] for workdir in (half, tmp_path / "there"))
        jax.tree.map(lambda a, b, equal=equal: np.testing.assert_allclose(a, b, rtol=equal, atol=equal / 16), got, want)
    loop.train(run.make(cfg), tmp_path / "there")
    ours, theirs = (
        {row["step"]: row["loss"] for row in metrics.read(w) if "loss" in row} for w in (tmp_path / "there", straight)
    )
    assert ours[3] == theirs[3]  # the same weights, noise and clips
    assert ours[4] == pytest.approx(theirs[4], rel=1e-3)
    want, got = (checkpoint.read(str(workdir), "params")[1] for workdir in (straight, tmp_path / "there"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-3), got, want)


def test_files_are_small_and_hold_what_they_should(trained, monkeypatch, tmp_path):
    _, _, half, _ = trained
    monkeypatch.setattr(compact, "LARGEST", 20_000)
    compact.write(half, tmp_path / "small")
    found = sorted((tmp_path / "small").glob("*.safetensors"))
    assert len(found) > 2
    for file in found:
        sizes = [array.nbytes for array in load_file(file).values()]
        assert sum(sizes) <= 20_000 or len(sizes) == 1
    about = json.loads((tmp_path / "small" / "position.json").read_text())
    assert about["files"] == [file.name for file in found] and about["step"] == 2 and about["fingerprint"]
    assert compact.read(tmp_path / "small", tmp_path / "there") == 2


def test_bad_input_is_one_sentence(trained, tmp_path):
    cfg, straight, half, small = trained
    with pytest.raises(InputError, match="exists already"):
        compact.write(half, small)
    with pytest.raises(InputError, match="holds checkpoints already, the newest of step 4"):
        compact.read(small, straight)
    with pytest.raises(InputError, match="holds no run"):
        compact.write(tmp_path, tmp_path / "new")
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "config.json").write_text(json.dumps(dataclasses.asdict(cfg)))
    with pytest.raises(InputError, match=r"position\.json is missing, cut short or damaged"):
        compact.read(cut, tmp_path / "there")
    (cut / "position.json").write_text(json.dumps({"step": 2, "state": {}, "fingerprint": "", "files": []}))
    with pytest.raises(InputError, match=r"lacks params/.* of the run's state"):
        compact.read(cut, tmp_path / "there")
    assert not (tmp_path / "new").exists()
