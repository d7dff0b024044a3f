"""Teacher and causal stage on encoded clips: they learn, resume, measure, and refuse what can't be trained."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError, DiTConfig, MemoryConfig, RelicConfig, StreamConfig, VAEConfig, VideoConfig
from relic_jax.data import builder, latents, loader, shards, workers
from relic_jax.errors import InputError
from relic_jax.models import weights
from relic_jax.models.conditioning import Conditions
from relic_jax.rng import streams
from relic_jax.train import causal, metrics, run, teacher
from relic_jax.train import clips as train_clips
from relic_jax.train.optimizer import OptimizerConfig
from tests.small import random_bundle
from tests.train import encoded

pytestmark = pytest.mark.usefixtures("compile_once")
MODEL = dataclasses.replace(
    RelicConfig.tiny(),
    video=VideoConfig(height=32, width=48),
    dit=DiTConfig(
        dim=48, ffn_dim=64, heads=2, layers=2, latent_channels=4, text_len=32, text_dim=64, cond_dim=8, freq_dim=16
    ),
    vae=VAEConfig(
        latent_channels=4, base_dim=4, multipliers=(1, 1, 1), res_blocks=1, temporal_down=(True, True), patch_size=2
    ),
    memory=MemoryConfig(window=4, horizon=10, schedule=(1, 4, 2)),
    stream=StreamConfig(block=2, timesteps=(1000.0, 625.0)),
)
LATENTS = 8
FRAMES = 29


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four encoded clips, and the VAE that encoded them."""
    folder = tmp_path_factory.mktemp("latents")
    model = random_bundle(MODEL)
    recipe = builder.Recipe(FRAMES, 32, 48, seed=0)
    raw = shards.Split(folder / "clips", "train", 4)
    raw.directory.mkdir()
    shards.claim(raw, dataclasses.asdict(recipe))
    for shard in range(len(raw.shards)):
        recipe.write(raw, shard, lambda: None)
    shards.finish(raw.directory, builder.features(32, 48), "test")
    encoded = shards.Split(folder / "encoded", "train", 4)
    encoded.directory.mkdir()
    clips = loader.Clips(raw.directory)
    workers.write(
        encoded, latents.Encoding(str(clips.directory), model.params, MODEL, model.tokenizer, {"weights": "random"}), 1
    )
    weights.save_safetensors(folder / "vae.safetensors", model.params["vae"])
    return folder


def config(data, name, **changed):
    kind = {"teacher": teacher.TeacherConfig, "causal": causal.CausalConfig}[name]
    return kind(
        **{
            "stage": name,
            "model": MODEL,
            "vae": str(data / "vae.safetensors"),
            "data": str(data / "encoded"),
            "data_val": str(data / "encoded"),
            "steps": 4,
            "batch": 2,
            "frames": FRAMES,
            "optimizer": OptimizerConfig(kind="muon", learning_rate=1e-3, warmup=1, schedule="cosine"),
            "log_every": 1,
            "sample_every": 4,
            "save_every": 2,
        }
        | changed
    )


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("teacher", encoded.resumes_exactly),
        ("causal", encoded.trains),  # its state and its batches are the teacher's
        pytest.param("causal", encoded.resumes_exactly, marks=pytest.mark.slow),
    ],
)
def test_trains_and_resumes_exactly(data, name, way, tmp_path):
    straight = way(config(data, name), tmp_path)
    rows = metrics.read(straight)
    assert {"val_psnr_db", "val_gain_db"} <= rows[-1].keys()
    assert list((straight / "samples").glob("*.png"))


class Pass(NamedTuple):
    """What a stage has asked of the transformer."""

    noisy: jax.Array
    level: jax.Array
    given: Conditions
    clean_blocks: jax.Array | None = None


@pytest.fixture
def answer(monkeypatch):
    """Both stages' transformers replaced by a function of a `Pass`."""

    def replace(function):
        def bidirectional(params, cfg, *, checkpoint=False):
            return lambda noisy, level, given: function(Pass(noisy, level, given))

        def hybrid(self, params, latents, noisy, level, given, clean_blocks):
            return function(Pass(noisy, level, given, clean_blocks))

        monkeypatch.setattr(teacher, "bidirectional", bidirectional)
        monkeypatch.setattr(causal.CausalStage, "noisy_velocity", hybrid)

    return replace


@pytest.mark.parametrize("name", ["teacher", "causal"])
def test_picture_takes_no_part_in_the_loss(data, name, answer):
    """Whatever a model says of the first latent, which is always clean, costs nothing; of any other it does."""
    made = run.make(config(data, name, frames=13))  # a window of 4 latents: the causal stage begins at the picture
    batch = {k: jnp.asarray(v) for k, v in next(made.batches(0)).items()}
    levels = []

    def loss_with_error_at(latent):
        def velocity(asked):
            levels.append(asked.level)
            return jnp.zeros(asked.noisy.shape).at[:, latent].set(100.0)

        answer(velocity)
        return float(made.loss({}, batch, streams(jax.random.key(5)))[0])

    picture, last = loss_with_error_at(0), loss_with_error_at(3)
    assert picture < 10 and last > 1000
    assert (levels[0][:, 0] == 0).all() and (levels[0][:, 1:] > 0).all()


def test_a_hidden_picture_is_noise_like_the_rest_and_counts(data, answer):
    made = run.make(config(data, "teacher", frames=13, batch=4, picture_drop=0.5))
    batch = {k: jnp.asarray(v) for k, v in next(made.batches(0)).items()}
    hidden = []

    def velocity(asked):
        shown = asked.level[:, 0] == 0
        assert (shown | (asked.level[:, 0] == asked.level[:, 1])).all() and (asked.level[:, 1:] > 0).all()
        np.testing.assert_array_equal(asked.noisy[shown, 0], batch["latents"][shown, 0])
        hidden.append(int((~shown).sum()))
        return jnp.zeros(asked.noisy.shape).at[:, 0].set(100.0)

    answer(velocity)
    for key in range(40):
        loss = float(made.loss({}, batch, streams(jax.random.key(key)))[0])
        pictures, latents = hidden[-1], 4 * 3 + hidden[-1]
        assert loss == pytest.approx(1e4 * pictures / latents, abs=10)
    assert 0.4 < np.mean(hidden) / 4 < 0.6


def test_each_condition_is_dropped_as_often_as_its_own_share_says(data, answer):
    """A third of the texts and two thirds of the poses: swapped shares would be seen."""
    for name in ("teacher", "causal"):
        made = run.make(config(data, name, frames=13, batch=4, text_drop=1 / 3, pose_drop=2 / 3))
        batch = {k: jnp.asarray(v) for k, v in next(made.batches(0)).items()}
        without = []

        def velocity(asked, without=without):
            without.append(((asked.given.text == 0).all((1, 2)).mean(), (asked.given.pose_weight == 0).mean()))
            return jnp.zeros_like(asked.noisy)

        answer(velocity)
        for key in range(100):
            made.loss({}, batch, streams(jax.random.key(key)))
        np.testing.assert_allclose(np.mean(without, axis=0), [1 / 3, 2 / 3], atol=0.08)


def test_noisy_blocks_begin_anywhere_alike(data):
    """Windows of 2 of 4 blocks begin at blocks 0, 1 or 2."""
    made = run.make(config(data, "causal", batch=4))
    clean_blocks, index = made.draw_noisy_blocks(6000, streams(jax.random.key(0)))
    np.testing.assert_allclose(np.bincount(clean_blocks, minlength=3) / 6000, [1 / 3] * 3, atol=0.02)
    np.testing.assert_array_equal(index, 2 * clean_blocks[:, None] + np.arange(4))


def test_conditions_rescale_positions_to_the_streams_unit():
    batch = {
        "text": jnp.zeros((1, 2, 3)),
        "actions": jnp.zeros((1, 5, 13)),
        "rotations": jnp.broadcast_to(jnp.eye(3), (1, 5, 3, 3)),
        "positions": jnp.ones((1, 5, 3)),
        "unit": jnp.array([0.2]),
    }
    given = train_clips.conditions(batch, MODEL)
    # 1 m is 5 of the clip's units; the stream's unit is 0.1 m, and poses are scaled by 1 / 10.
    np.testing.assert_allclose(given.poses[0, 1, 9:12], 5 * 0.1 / 10, rtol=1e-6)


def test_dropped_conditions_are_zero_and_independent():
    given = Conditions.of(jnp.ones((2000, 1, 1)), jnp.ones((2000, 1, 52)), jnp.ones((2000, 1, 48)))
    dropped = train_clips.drop(given, streams(jax.random.key(0)), text=0.1, pose=0.3)
    text, pose = dropped.text[:, 0, 0] == 0, dropped.pose_weight == 0
    assert abs(text.mean() - 0.1) < 0.03 and abs(pose.mean() - 0.3) < 0.04
    assert abs((text & pose).mean() - 0.03) < 0.02
    assert (dropped.actions == 1).all()


def test_bad_input_before_any_compile(data):
    with pytest.raises(ConfigError, match=r"config\.frames=25 are 7 latents, expected a multiple of model\.stream"):
        run.make(config(data, "causal", frames=25))
    with pytest.raises(ConfigError, match=r"config\.frames=28: expected 4 L \+ 1 frames"):
        run.make(config(data, "teacher", frames=28))
    with pytest.raises(InputError, match="expected clips of 16 latents|got one of 8"):
        run.make(config(data, "causal", frames=61))
    with pytest.raises(InputError, match="config.vae is empty"):
        run.make(config(data, "teacher", vae=""))
    with pytest.raises(InputError, match="expected a data set made by launch.prepare_data"):
        run.make(config(data, "teacher", data_val=str(data / "none")))
