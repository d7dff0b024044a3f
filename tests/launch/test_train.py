import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from relic_jax.config import from_config_dict
from relic_jax.models import module, vae, weights
from relic_jax.train import checkpoint, metrics
from relic_jax.train import run as runs
from relic_jax.train.vae import VAERunConfig
from tests.programs import start

SMALL = [
    "--config=configs/tiny_vae.py:short", "--config.model.video.height=16", "--config.model.video.width=24",
    "--config.model.vae.base_dim=8", "--config.model.vae.multipliers=(1,)",
    "--config.model.vae.temporal_down=()", "--config.batch=2", "--config.frames=3", "--config.optimizer.warmup=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data")
    size = ["--clips=3", "--frames=9", "--height=16", "--width=24", "--workers=1"]
    done = start("launch.prepare_data", "world", *size, f"--out={folder}")
    assert done.returncode == 0, done.stderr
    return str(folder)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("run")
    arguments = [*SMALL, f"--config.data={data}", f"--config.data_val={data}", "--config.steps=4"]
    (workdir / "arguments").write_text("\n".join(arguments))
    done = start("launch.train", *arguments, f"--workdir={workdir}", f"--json={workdir}/result.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("vae: 4 steps, loss ")
    return workdir


def test_trains_and_reports(run):
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 4 and result["signal"] == 0
    assert set(result) == {"steps", "loss", "steps_per_s", "compile_s", "wall_s", "peak_rss_bytes", "signal"}
    rows = metrics.read(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 4] and "val_psnr_db" in rows[-1]
    assert rows[3]["loss"] < rows[0]["loss"]
    assert [path.name for path in (run / "samples").iterdir()] == ["reconstruction_0000004.png"]


def test_latents_are_normalised_by_what_finish_measured(run):
    cfg = from_config_dict(VAERunConfig, json.loads((run / "config.json").read_text()))
    params = checkpoint.load_params(str(run), module.abstract(vae.VAE, cfg.model.vae))
    batches = runs.make(cfg).batches(cfg.seed)
    encode = jax.jit(lambda video: vae.encode_video(params, cfg.model.vae, video.astype(jnp.float32) / 127.5 - 1))
    latents = np.concatenate([encode(next(batches)["video"]) for _ in range(32)])
    latents = latents.reshape(-1, cfg.model.vae.latent_channels)
    np.testing.assert_allclose(latents.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(latents.std(axis=0), 1, atol=1e-4)


def test_another_configuration_is_refused(fork, run):
    arguments = (run / "arguments").read_text().split("\n")
    done = fork("launch.train", *arguments, "--config.seed=5", f"--workdir={run}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {run} holds a run with config.seed=0, this one has config.seed=5;")
    assert done.stderr.count("\n") == 1


def test_export(fork, run, tmp_path):
    done = fork("launch.export", "weights", f"--workdir={run}", f"--out={tmp_path}/vae.safetensors", "--dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    cfg = from_config_dict(VAERunConfig, json.loads((run / "config.json").read_text()))
    expected = module.abstract(vae.VAE, cfg.model.vae)
    exported = checkpoint.load_params(f"{tmp_path}/vae.safetensors", expected)
    for (name, got), (_, want) in zip(
        weights.leaves(exported), weights.leaves(checkpoint.load_params(str(run), expected)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=2**-8, err_msg=name)
    metadata = weights.read_metadata(f"{tmp_path}/vae.safetensors")
    assert metadata["step"] == "4" and json.loads(metadata["config"])["stage"] == "vae"


def test_curves(fork, run, tmp_path):
    done = fork("launch.export", "curves", f"--runs={run},{run}", f"--out={tmp_path}/curves.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 2.5 * picture.height  # a panel each, side by side
    done = fork("launch.export", "curves", f"--runs={run},{tmp_path}/none", f"--out={tmp_path}/other.png")
    assert done.returncode == 2 and not (tmp_path / "other.png").exists()
    assert done.stderr == (
        f"error: {tmp_path}/none: expected a training run's folder with metrics.jsonl: No such file or directory\n"
    )


def test_export_of_nothing(fork, tmp_path):
    done = fork("launch.export", "weights", f"--workdir={tmp_path}", f"--out={tmp_path}/vae.safetensors")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds no weights; expected a training run's workdir" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.data_val={tmp}/none"], "{tmp}/none: expected a data set made by launch.prepare_data"),
        (["--config.stage=teacher"], "config.kl does not exist; config has "),
        (["--config.stage=teach"], "config.stage='teach' is not one of vae, teacher, causal, ode, distill"),
        (["--config.optimizer.kind=sgd"], "optimizer.kind='sgd' is not one of adamw, muon"),
        (["--config.optimizer.schedule=linear"], "optimizer.schedule='linear' is not one of constant, cosine"),
        (["--config=configs/tiny_vae.py:medium"], "configs/tiny_vae.py:medium: expected one of short, long"),
        (["--config=configs/tiny_distill.py:10s", "--config.frames=161"], "161 are 41 latents, expected a multiple of"),
        (["--workdir={tmp}/file/run"], "the output folder {tmp}/file/run can't be made"),
        (["--json={tmp}/none/result.json"], "the folder {tmp}/none can't be written to"),
        (["--config=configs/tiny.py"], "configs/tiny.py doesn't describe a training run: it names no stage"),
        (["--config={tmp}/short.py"], "{tmp}/short.py doesn't describe a training run: it names no stage"),
    ],
)
def test_bad_input(fork, tmp_path, arguments, sentence):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "short.py").write_text("import ml_collections\nget_config = ml_collections.ConfigDict")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    done = fork("launch.train", f"--workdir={tmp_path}/run", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ") and sentence.format(tmp=tmp_path) in done.stderr
    assert (tmp_path / "file").read_text() == "kept"
