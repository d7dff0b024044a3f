"""Stage `ode`: what it regresses on, exact resumption, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError
from relic_jax.data import trajectories
from relic_jax.errors import InputError
from relic_jax.rng import streams
from relic_jax.train import loop, metrics, ode, run
from relic_jax.train.checkpoint import Checkpoints
from relic_jax.train.optimizer import OptimizerConfig
from tests.small import frames_of
from tests.train import encoded

LATENTS = 8
FRAMES = frames_of(LATENTS)
pytestmark = pytest.mark.usefixtures("compile_once")
MODEL = encoded.model()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Encoded clips, a teacher, and its trajectories."""
    folder = tmp_path_factory.mktemp("ode")
    encoded.write(folder, MODEL, LATENTS)
    cfg = trajectories.TrajectoryConfig(
        stage="ode_data",
        model=MODEL,
        teacher=str(folder / "student.safetensors"),
        data=str(folder / "clips"),
        frames=FRAMES,
        clips=4,
        batch=4,
        steps=4,
        workers=1,
    )
    trajectories.write(cfg, folder / "trajectories")
    return folder


def config(folder, **changed):
    return ode.OdeConfig(
        **{
            "stage": "ode",
            "model": MODEL,
            "vae": str(folder / "vae.safetensors"),
            "data": str(folder / "trajectories"),
            "data_val": str(folder / "clips"),
            "init_from": str(folder / "student.safetensors"),
            "steps": 4,
            "batch": 2,
            "frames": FRAMES,
            "optimizer": OptimizerConfig(learning_rate=1e-3, warmup=1, schedule="cosine"),
            "log_every": 1,
            "sample_every": 4,
            "save_every": 2,
        }
        | changed
    )


@pytest.mark.parametrize(
    ("compress", "way"),
    [
        ("latent", encoded.trains),  # it goes on as `test_latent_stages` tries it
        pytest.param("latent", encoded.resumes_exactly, marks=pytest.mark.slow),
        pytest.param("kv", encoded.resumes_exactly, marks=pytest.mark.slow),
    ],
)
def test_trains_and_resumes_exactly(data, compress, way, tmp_path):
    straight = way(config(data, model=encoded.model(compress=compress)), tmp_path)
    rows = metrics.read(straight)
    assert {"loss", "loss_last_block"} <= rows[0].keys() and {"val_psnr_db", "val_gain_db"} <= rows[-1].keys()


def test_regresses_on_where_the_trajectory_ends(data, monkeypatch):
    """A model that knows the end costs nothing, one that is wrong by 1 costs 1, and the picture never counts."""
    stage = run.make(config(data, batch=4))
    batch = {name: jnp.asarray(x) for name, x in next(stage.batches(0)).items()}
    block, window, path = MODEL.stream.block, MODEL.memory.window, np.asarray(batch["trajectory"])
    seen = []

    def loss(wrong, key, at=None):
        def model(self, params, clean, noisy, level, given, clean_blocks):
            np.testing.assert_array_equal(clean, batch["latents"])
            check(*map(np.asarray, (noisy, level, clean_blocks)))
            index = clean_blocks[:, None] * block + jnp.arange(window)
            target = jnp.take_along_axis(batch["latents"], index[..., None, None, None], axis=1)
            error = wrong * ((index == at) if at is not None else jnp.ones_like(index))
            s = jnp.where(level == 0, 1, level)[..., None, None, None]
            return (noisy - target - error[..., None, None, None]) / s

        def check(noisy, level, clean_blocks):
            for b, first in enumerate(clean_blocks * block):
                for i in range(window):
                    stop = int(np.argmin(np.abs(np.array(MODEL.stream.timesteps) / 1000 - float(level[b, i]))))
                    latent = first + i
                    if latent == 0:
                        assert level[b, i] == 0
                        stop = 0  # the picture is itself at every timestep
                    else:
                        assert float(level[b, i]) == pytest.approx(MODEL.stream.timesteps[stop] / 1000)
                        assert level[b, i] == level[b, i - i % block + 1], "one timestep a block"
                    np.testing.assert_array_equal(noisy[b, i], path[b, latent, stop])
                    seen.append((latent, stop))

        monkeypatch.setattr(ode.OdeStage, "noisy_velocity", model)
        return float(stage.loss({}, batch, streams(jax.random.key(key)))[0])

    for key in range(6):
        assert loss(0.0, key) < 1e-9
    assert loss(1.0, 0) == pytest.approx(1, rel=1e-4)
    assert loss(100.0, 0, at=0) < 1e-9
    assert {latent for latent, _ in seen} == set(range(LATENTS))
    assert {stop for _, stop in seen} == {0, 1, 2, 3}


def test_bad_input_before_any_compile(data):
    with pytest.raises(ConfigError, match="config.init_from is empty: stage ode starts from the weights"):
        run.make(config(data, init_from=""))
    for frames, sentence in (
        (25, "config.frames=25 are 7 latents, expected a multiple of model.stream.block=2"),
        (5, "config.frames=5 are 2 latents, expected at least model.memory.window=4"),
        (45, "config.frames=45 are 12 latents, expected at most model.memory.horizon=10"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            run.make(config(data, frames=frames))
    with pytest.raises(InputError, match="record 0: expected clips of 10 latents, got one of 8; 37 frames are wanted"):
        run.make(config(data, frames=37))
    with pytest.raises(InputError, match="trajectory, timesteps did not come"):
        run.make(config(data, data=str(data / "clips")))
    other = dataclasses.replace(MODEL, stream=dataclasses.replace(MODEL.stream, timesteps=(1000.0, 625.0)))
    with pytest.raises(InputError, match="kept at timesteps 1000, 937.5, 833.333, 625, model.* are 1000, 625"):
        run.make(config(data, model=other))
    with pytest.raises(ConfigError, match="memory.horizon=9 must be a multiple of stream.block=2"):
        dataclasses.replace(MODEL, memory=dataclasses.replace(MODEL.memory, horizon=9))


@pytest.mark.parametrize("path", ["none", "none.safetensors"])
def test_a_missing_predecessor_is_said(data, tmp_path, path):
    cfg = config(data, init_from=str(data / path))
    with pytest.raises(InputError, match="none holds no weights|none.safetensors does not exist"):
        loop.train(run.make(cfg), tmp_path)


def test_the_workdir_of_another_config_is_refused(data, tmp_path):
    cfg = config(data)
    first = Checkpoints(tmp_path, cfg, 1)
    first.save(1, {name: {"a": np.zeros(1)} for name in ("params", "ema", "opt_state")}, {})
    first.close()
    faster = dataclasses.replace(cfg.optimizer, learning_rate=2e-3)
    with pytest.raises(ConfigError, match="holds a run with config.optimizer.learning_rate=0.001, .* has .*=0.002"):
        loop.train(run.make(config(data, optimizer=faster)), tmp_path)
