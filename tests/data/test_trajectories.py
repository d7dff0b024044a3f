"""The teacher's trajectories: against its own sampler, stopped and resumed, refused where something doesn't fit."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from relic_jax.config import ConfigError
from relic_jax.data import loader, shards, trajectories
from relic_jax.diffusion import flow
from relic_jax.errors import InputError
from relic_jax.models import module, weights
from relic_jax.models.dit import DiT
from relic_jax.parallel.part import Part
from relic_jax.rng import numbered
from relic_jax.train import teacher
from relic_jax.train.clips import conditions
from relic_jax.train.optimizer import OptimizerConfig
from tests.small import frames_of
from tests.train import encoded

pytestmark = pytest.mark.usefixtures("compile_once")

MODEL = encoded.model()
LATENTS = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three encoded clips, and `student.safetensors`, which is the teacher here."""
    folder = tmp_path_factory.mktemp("data")
    encoded.write(folder, MODEL, LATENTS, clips=3)
    return folder


def config(folder, **changed):
    values = {
        "stage": "ode_data",
        "model": MODEL,
        "teacher": str(folder / "student.safetensors"),
        "data": str(folder / "clips"),
        "frames": frames_of(LATENTS),
        "clips": 5,
        "batch": 2,
        "steps": 8,
        "seed": 4,
        "workers": 1,
    }
    return trajectories.TrajectoryConfig(**values | changed)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*array_record*")}


def test_eulers_path_is_straight_where_the_velocity_is_constant():
    clean, noise = jax.random.normal(jax.random.key(0), (2, 2, 3, 2, 2, 1))
    levels = flow.shift(1 - jnp.arange(6) / 6)
    end, path = flow.solve(lambda x, level: noise - clean, noise, clean[:, 0], levels)
    np.testing.assert_allclose(end, clean, atol=1e-6)
    for state, level in zip(path, levels, strict=True):
        expected = flow.add_noise(clean, noise, jnp.full((2, 3), level).at[:, 0].set(0))
        np.testing.assert_allclose(state, expected, atol=1e-6)


def test_kept_steps_are_the_specifications(data):
    assert config(data, steps=48).kept == (0, 12, 24, 36)


def test_end_is_where_the_teachers_own_sampler_arrives(data):
    cfg = config(data, batch=1, steps=24, guidance=1.0)
    of_run = teacher.TeacherConfig(
        stage="teacher", model=MODEL, data="", data_val="", steps=1, batch=1, frames=cfg.frames,
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )  # fmt: skip
    params = weights.load_safetensors(cfg.teacher, module.abstract(DiT, MODEL.dit))
    clip = loader.Latents(cfg.data, LATENTS)[1]
    batch = {name: jnp.asarray(x)[None] for name, x in clip.items()}
    number = 7
    key = numbered(jax.random.key(cfg.seed), number)
    sample = jax.jit(teacher.TeacherStage(of_run).generate)
    expected = sample(params, batch["latents"][:, 0], conditions(batch, MODEL), key)
    end, path = trajectories.solve(params, cfg, batch, np.array([number]))
    np.testing.assert_allclose(end, expected, atol=1e-4)
    np.testing.assert_array_equal(end[:, 0], batch["latents"][:, 0])
    noise = jax.random.normal(key, path.shape[:2] + path.shape[3:])
    np.testing.assert_allclose(path[:, 1:, 0], noise[:, 1:], atol=1e-6)  # the first timestep is pure noise
    np.testing.assert_array_equal(path[:, 0], np.repeat(clip["latents"][None, :1], 4, axis=1))  # but for the picture


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Written without interruption; two records a shard."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_RECORDS", 2)
        assert trajectories.write(config(data), folder) == (5, 5)
    return folder


def test_records_read_back(data, whole):
    source = tfds.builder_from_directory(whole).as_data_source("train")
    assert len(source) == 5
    clips = loader.Latents(data / "clips", LATENTS, fields=(*loader.LATENT_FIELDS, "seed"))
    for number in range(5):
        record, clip = source[number], clips[number % 3]
        assert record["trajectory"].shape == (LATENTS, 4, 4, 6, 4) and record["seed"] == clip["seed"]
        for name in ("actions", "positions", "rotations", "unit", "text"):
            np.testing.assert_array_equal(record[name], clip[name])
        np.testing.assert_array_equal(record["latents"][0], clip["latents"][0])
        np.testing.assert_allclose(record["timesteps"], [1000, 937.5, 2500 / 3, 625], rtol=1e-6)
    assert np.abs(source[0]["trajectory"][1:, 0] - source[3]["trajectory"][1:, 0]).max() > 1  # a clip's second noise
    batch = next(loader.latent_batches(whole, batch=2, seed=0, latents=4, fields=loader.TRAJECTORY_FIELDS))
    assert batch["trajectory"].shape == (2, 4, 4, 4, 6, 4) and batch["trajectory"].dtype == np.float32


def test_stopped_and_resumed_is_the_same_data_set(data, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_RECORDS", 2)
    solve, calls = trajectories.solve, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solve(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trajectories, "solve", stopped)
        trajectories.write(config(data), tmp_path)
    assert len(contents(tmp_path)) == 1
    assert trajectories.write(config(data), tmp_path) == (5, 3)
    assert contents(tmp_path) == contents(whole)
    assert trajectories.write(config(data), tmp_path) == (5, 0)


def test_trajectories_do_not_depend_on_what_they_are_made_with(data, whole, tmp_path):
    trajectories.write(config(data, batch=3, clips=4), tmp_path)
    ours, theirs = (tfds.builder_from_directory(folder).as_data_source("train") for folder in (tmp_path, whole))
    for number in range(4):
        np.testing.assert_allclose(
            np.float32(ours[number]["trajectory"]), np.float32(theirs[number]["trajectory"]), atol=2e-2
        )


def test_hosts_share_the_shards(data, whole, tmp_path, monkeypatch):
    """Three shards for two hosts; the last to end completes the data set."""
    monkeypatch.setattr(shards, "SHARD_RECORDS", 2)
    assert trajectories.write(config(data), tmp_path, Part(0, 2)) == (5, 3)
    assert len(contents(tmp_path)) == 2 and not (tmp_path / "dataset_info.json").exists()
    assert trajectories.write(config(data), tmp_path, Part(1, 2)) == (5, 2)
    assert contents(tmp_path) == contents(whole)
    assert len(tfds.builder_from_directory(tmp_path).as_data_source("train")) == 5


@pytest.mark.slow
def test_two_processes_write_the_same(data, tmp_path):
    """A shard each. Their compiler has other options than this process's, so the last bits may differ."""
    made = {workers: tmp_path / str(workers) for workers in (1, 2)}
    for workers, folder in made.items():
        assert trajectories.write(config(data, clips=17, workers=workers), folder) == (17, 17)
    ours, theirs = (tfds.builder_from_directory(folder).as_data_source("train") for folder in made.values())
    assert len(contents(made[2])) == 2 and len(ours) == len(theirs) == 17
    for number in range(17):
        a, b = (np.float32(source[number]["trajectory"]) for source in (ours, theirs))
        np.testing.assert_allclose(a, b, atol=2e-2)


def test_bad_input_before_any_compile(data, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_RECORDS", 2)
    monkeypatch.delattr(trajectories, "solve")
    with pytest.raises(ConfigError, match="timesteps has 937.5, which is none of the timesteps of config.steps=6"):
        config(data, steps=6)
    with pytest.raises(ConfigError, match="config.clips=0 must be at least 1"):
        config(data, clips=0)
    for changed, error, sentence in (
        ({"frames": 18}, ConfigError, r"config.frames=18: expected 4 L \+ 1 frames"),
        ({"frames": 37}, InputError, "record 0: expected clips of 10 latents, got one of 5; 37 frames are wanted"),
        ({"teacher": str(data / "none")}, InputError, "none holds no weights; expected a training run's workdir"),
        ({"data": str(data)}, InputError, "expected a data set made by launch.prepare_data"),
    ):
        with pytest.raises(error, match=sentence):
            trajectories.write(config(data, **changed), tmp_path)
    with pytest.raises(InputError, match="already holds a split 'train' with guidance=4.0, this one has guidance=2.0"):
        trajectories.write(config(data, guidance=2.0), whole)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="holds a training run; choose another --workdir"):
        trajectories.write(config(data), tmp_path)


def test_a_teacher_of_another_length_or_kind_is_refused(tmp_path):
    run = {"frames": 81, "model": {"dit": dataclasses.asdict(MODEL.dit)}}
    (tmp_path / "config.json").write_text(json.dumps(run))
    trajectories.check_teacher(str(tmp_path), MODEL.dit, 81)
    with pytest.raises(InputError, match="the teacher was trained on clips of 81 frames, expected at least 157"):
        trajectories.check_teacher(str(tmp_path), MODEL.dit, 157)
    stretched = MODEL.stretched(40).dit
    with pytest.raises(InputError, match=r"trained with config.model.dit.yarn_scale=1.0, the config has 1.904"):
        trajectories.check_teacher(str(tmp_path), stretched, 81)
