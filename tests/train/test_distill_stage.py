"""Stage `distill` on clips of random numbers: what each step changes, exact resumption, and what it refuses."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError, from_config_dict
from relic_jax.errors import InputError
from relic_jax.models import vae, weights
from relic_jax.models.dit import DiT
from relic_jax.train import clips, collapse, distill, loop, metrics, openings, replay
from relic_jax.train import stage as stages
from tests.small import frames_of
from tests.train import encoded

pytestmark = pytest.mark.usefixtures("compile_once")
ROOT = Path(__file__).parents[2]
LATENTS = 6  # three blocks: the last one has memory
FRAMES = frames_of(LATENTS)
MODEL = encoded.model()
TEACHER = dataclasses.replace(encoded.DIT, dim=32, ffn_dim=40, yarn_scale=2.0)
CRITIC = dataclasses.replace(encoded.DIT, dim=16, layers=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips, and weights of four models of different sizes."""
    folder = tmp_path_factory.mktemp("distill")
    encoded.write(folder, MODEL, LATENTS)
    of_teacher = {"config": json.dumps({"frames": FRAMES + 4, "model": {"dit": dataclasses.asdict(TEACHER)}})}
    weights.save_safetensors(str(folder / "teacher.safetensors"), encoded.random_params(DiT, TEACHER), of_teacher)
    weights.save_safetensors(str(folder / "critic.safetensors"), encoded.random_params(DiT, CRITIC, seed=1))
    return folder


@pytest.fixture(autouse=True)
def anything_goes(monkeypatch):
    """A student of random weights is unlike any clip."""
    monkeypatch.setattr(collapse, "LIMITS", dict.fromkeys(collapse.LIMITS, (0.0, np.inf)))


def config(data, options=None, **changed):
    options = {
        "vae": str(data / "vae.safetensors"),
        "teacher": str(data / "teacher.safetensors"),
        "teacher_dit": TEACHER,
        "critic": str(data / "critic.safetensors"),
        "critic_dit": CRITIC,
        "critic_learning_rate": 1e-3,
        "generator_every": 2,
        "micro_batch": 1,
        "ema_start": 3,
    } | (options or {})
    return stages.TrainConfig(
        **{
            "stage": "distill",
            "model": MODEL,
            "data": str(data / "clips"),
            "data_val": str(data / "clips"),
            "init_from": str(data / "student.safetensors"),
            "steps": 4,
            "batch": 2,
            "frames": FRAMES,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "warmup": 0,
            "betas": (0.0, 0.999),
            "clip": 10.0,
            "ema": 0.99,
            "log_every": 1,
            "sample_every": 4,
            "save_every": 2,
            "distill": stages.DistillOptions(**options),
        }
        | changed
    )


def same(a, b):
    return all(bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_critic_learns_at_every_step_and_the_student_at_every_second(data):
    made = stages.make(config(data))
    trainer = made.trainer(jax.random.key(0))
    state = trainer.start(encoded.random_params(DiT, MODEL.dit), *trainer.besides)
    batches, exits = made.batches(0), set()
    for step in range(1, 5):
        before = jax.tree.map(jnp.copy, state)
        state, scalars = trainer.step(state, next(batches))
        turn = step % 2 == 0
        assert state.step == step
        assert not same(state.extra["critic"], before.extra["critic"])
        assert same(state.params, before.params) == (not turn)
        assert bool(jnp.isnan(scalars["student_gradient_norm"])) == (not turn)
        assert scalars["loss"] > 0 and scalars["gradient_norm"] > 0
        if turn and step <= 3:
            assert same(state.ema, state.params)
        elif turn:
            expected = jax.tree.map(lambda old, new: 0.99 * old + 0.01 * new, before.ema, state.params)
            for got, want in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(got, want, atol=1e-6)
        exits.add(int(scalars["exit_step"]))
        # Adam without first moment moves each number by the learning rate at most.
        for old, new in zip(jax.tree.leaves(before.params), jax.tree.leaves(state.params), strict=True):
            assert jnp.abs(new - old).max() < 1.5e-3  # sqrt(2) times at the second update, and weight decay
    assert exits <= set(range(4)) and len(exits) > 1


OPENINGS = {"openings": 1.0, "openings_batch": 2, "openings_latents": 2}
RUNNING = {"steadiness": 1.0, "steadiness_latents": 2, "steadiness_bands": 2}


@pytest.mark.parametrize("options", [{}, {**OPENINGS, **RUNNING}], ids=["plain", "openings and running means"])
def test_resumes_exactly(data, tmp_path, options):
    cfg = config(data, {"openings_data": str(data / "clips"), **options})
    straight, halved = tmp_path / "straight", tmp_path / "halved"
    for workdir in (straight, halved):
        workdir.mkdir()
    result = loop.train(cfg, stages.make(cfg), straight)
    assert result["steps"] == 4 and result["loss"] > 0
    stopped = stages.make(cfg)
    object.__setattr__(stopped, "batches", lambda seed, part: encoded.Stopping(stages.make(cfg).batches(seed, part), 3))
    with pytest.raises(KeyboardInterrupt):  # stops hard at the fourth batch, after the checkpoint of step 2
        loop.train(cfg, stopped, halved)
    loop.train(cfg, stages.make(cfg), halved)
    assert (straight / "metrics.jsonl").read_bytes() == (halved / "metrics.jsonl").read_bytes()
    rows = metrics.read(straight)
    assert [("student_gradient_norm" in row) for row in rows[:4]] == [False, True, False, True]
    assert {"val_psnr_db", "val_gain_db"} <= rows[-1].keys()
    assert set(collapse.LIMITS) <= rows[0].keys()
    assert list((straight / "samples").glob("*.png"))


def test_regression_and_steadiness_move_the_student_and_the_error_is_that_of_the_first_latents(data):
    key, norms = jax.random.key(0), {}
    kinds = {"neither": {}, "regression": {"regression": 2.0}, "steadiness": {"steadiness": 1.0}}
    kinds["spectrum"] = {**kinds["steadiness"], "steadiness_spectrum": True}
    kinds["running"] = {**kinds["steadiness"], "steadiness_bands": 2}
    kinds["never"] = {**kinds["steadiness"], "steadiness_from": 4}  # no rollout leaves off so late
    for name, options in kinds.items():
        params = encoded.random_params(DiT, MODEL.dit)  # a step takes them
        common = {"generator_every": 1, "regression_latents": 3, "steadiness_latents": 2}
        made = stages.make(config(data, {**common, **options}))
        batch = jax.tree.map(jnp.asarray, next(made.batches(0)))
        if name == "neither":
            rollouts = made.roll_outs(params, batch, jax.random.split(jax.random.fold_in(key, 0), 3)[0])
            error = jax.vmap(replay.stream.join)(rollouts.clean).reshape(batch["latents"].shape) - batch["latents"]
            expected = (error[:, 1:3] ** 2).sum() / 2 / error[:, 1:].size
        trainer = made.trainer(key)
        _, scalars = trainer.step(trainer.start(params, *trainer.besides), batch)
        np.testing.assert_allclose(scalars["regression"], expected, rtol=1e-4)
        norms[name] = float(scalars["student_gradient_norm"])
    none = norms.pop("neither"), norms.pop("never")
    assert none[0] == pytest.approx(none[1], rel=1e-5)
    assert all(abs(norm / none[0] - 1) > 0.01 for norm in norms.values())
    assert all(abs(norms[name] / norms["steadiness"] - 1) > 0.01 for name in ("spectrum", "running"))


def test_openings_move_the_student_and_their_error_is_measured(data):
    key, weights_after = jax.random.key(0), {}
    sizes = {"openings_data": str(data / "clips"), "openings_batch": 3, "openings_latents": 4}
    for weight in (0.0, 50.0):
        params = encoded.random_params(DiT, MODEL.dit)  # a step takes them
        made = stages.make(config(data, {"openings": weight, **sizes}))
        batches = made.batches(0)
        if weight:
            next(batches)  # the student's turn is the second step
            of_turn = jax.random.split(jax.random.fold_in(key, 1), 3)[2]
            keys = jax.random.split(jax.random.fold_in(of_turn, 1))
            beginnings = openings.split(jax.tree.map(jnp.asarray, next(batches)))[1]
            rollouts = jax.jit(made.roll_outs)(params, beginnings, keys[0])
            error = jax.vmap(replay.stream.join)(rollouts.clean)[:, 0] - beginnings["latents"]
            expected = (error[:, 1:] ** 2).mean() / 2
            assert error.shape[:2] == (3, 4)
            batches = made.batches(0)
        trainer = made.trainer(key)
        state, scalars = trainer.step(trainer.start(params, *trainer.besides), next(batches))
        assert ("opening_regression" in scalars) == bool(weight)
        assert jnp.isnan(scalars.get("opening_regression", jnp.nan))
        state, scalars = trainer.step(state, next(batches))
        if weight:
            np.testing.assert_allclose(scalars["opening_regression"], expected, rtol=1e-4)
        weights_after[weight] = state.params
    assert not same(weights_after[0.0], weights_after[50.0])


def test_regression_on_revisits_counts_them_besides_the_first_latents(data, monkeypatch):
    monkeypatch.setattr(clips, "AGO", 16)  # these clips are shorter than what counts as long ago
    made = stages.make(config(data, {"regression": 2.0, "regression_latents": 2, "regression_revisits": LATENTS}))
    batch = jax.tree.map(jnp.asarray, next(made.batches(0)))
    still = {"rotations": jnp.zeros_like(batch["rotations"]) + jnp.eye(3), "positions": 0 * batch["positions"]}
    counted = made.determined({**batch, **still})  # latents 0 and 1 come first, from 4 on the camera has been there
    np.testing.assert_array_equal(counted, jnp.array([[1, 1, 0, 0, 1, 1]] * len(counted), bool))


def test_poses_are_dropped_from_a_share_of_the_rollouts(data):
    params, weights_of = encoded.random_params(DiT, MODEL.dit), {}
    for share in (0.0, 0.5):
        made = stages.make(config(data, {"pose_drop": share}))
        batch = jax.tree.map(lambda x: jnp.concatenate([jnp.asarray(x)] * 8), next(made.batches(0)))
        weights_of[share] = np.asarray(made.roll_outs(params, batch, jax.random.key(0)).pose_weight)
    assert (weights_of[0.0] == 1).all()
    assert {*weights_of[0.5].ravel().tolist()} == {0.0, 1.0}


def test_mean_over_micro_batches():
    x = jnp.arange(6.0).reshape(3, 2)
    videos, features = jnp.zeros((3, 1, 2, 1, 1, 1, 1)), jnp.zeros((3, 1, 2, 1, 1))
    rollouts = replay.Rollout(
        videos, videos, jnp.tile(features, 52), jnp.tile(features, 48), jnp.zeros((3, 2, 1, 1)), x, jnp.arange(3)
    )
    got = distill._mean(lambda r, y, key: (r.pose_weight + y, jax.random.uniform(key)), jax.random.key(0), rollouts, x)
    np.testing.assert_allclose(got[0], 2 * x.mean(axis=0))
    drawn = [jax.random.uniform(key) for key in jax.random.split(jax.random.key(0), 3)]
    np.testing.assert_allclose(got[1], np.mean(drawn), rtol=1e-6)


def test_judges_see_whole_rollouts_or_stretches_of_them(data):
    params, decoder = encoded.random_params(DiT, MODEL.dit), encoded.random_params(vae.VAE, MODEL.vae)
    made = {n: stages.make(config(data, {"judged_latents": n})) for n in (0, LATENTS, LATENTS - 4)}
    batch = next(made[0].batches(0))
    rollouts = jax.jit(made[0].roll_outs)(params, batch, jax.random.key(0))
    judged = {n: jax.jit(stage.judged)(rollouts, batch, decoder, jax.random.key(1)) for n, stage in made.items()}
    for all_of_it, as_long in zip(jax.tree.leaves(judged[0]), jax.tree.leaves(judged[LATENTS]), strict=True):
        np.testing.assert_allclose(all_of_it, as_long, atol=1e-6)
    stretch = judged[LATENTS - 4]
    assert set(np.asarray(stretch.start)) == {0, 4}  # this key draws one of each
    for start, seen, whole in zip(stretch.start, stretch.latents, judged[0].latents, strict=True):
        np.testing.assert_array_equal(seen[:, 1:], whole[:, start + 1 : start + LATENTS - 4])
    np.testing.assert_array_equal(stretch.given.text, judged[0].given.text)

    trainer = made[LATENTS - 4].trainer(jax.random.key(0))

    def step(batch):
        before = trainer.start(params, *trainer.besides)
        return jax.tree.leaves(before), jax.tree.leaves(trainer.step(before, batch)[0])

    for given, kept in zip(*jax.eval_shape(step, batch), strict=True):
        assert (given.shape, given.dtype) == (kept.shape, kept.dtype)


def test_the_stretches_decoder_lies_on_all_devices_of_a_mesh(data):
    options = {"judged_latents": LATENTS - 2, "micro_batch": 2}
    decoder = stages.make(config(data, options, mesh="fsdp=2,seq=4"))._decoder()
    assert all(len(x.devices()) == 8 and x.is_fully_replicated for x in jax.tree.leaves(decoder))


def test_collapse_stops(data):
    made = stages.make(config(data))
    made.check({name: 1.0 for name in collapse.LIMITS})
    collapse.LIMITS["detail"] = (0.2, 5.0)
    with pytest.raises(collapse.Collapse, match="detail of its video is 0.1 times that of real clips"):
        made.check({name: 1.0 for name in collapse.LIMITS} | {"detail": 0.1})


@pytest.mark.parametrize(
    ("options", "changed", "error", "sentence"),
    [
        ({}, {"init_from": ""}, ConfigError, r"config\.init_from is empty: stage distill starts from the weights of"),
        ({"teacher": ""}, {}, ConfigError, r"config\.distill\.teacher is empty"),
        ({"critic": ""}, {}, ConfigError, r"config\.distill\.critic is empty: a critic of a size of its own"),
        ({}, {"frames": 17}, ConfigError, r"config\.frames=17 are 5 latents, expected a multiple of .*block=2"),
        ({"steadiness": 1.0}, {}, ConfigError, r"spans of steadiness_latents=20: expected at least two"),
        ({}, {"frames": 20}, ConfigError, r"config\.frames=20: expected 4 L \+ 1 frames"),
        ({"micro_batch": 3}, {}, ConfigError, r"config\.batch=2 is not a multiple of distill\.micro_batch=3"),
        ({}, {"schedule": "cosine"}, ConfigError, "stage distill has a constant learning rate"),
        ({}, {"frames": 29}, InputError, r"teacher\.safetensors: the teacher was trained on clips of 25 frames, exp"),
        ({"teacher_dit": dataclasses.replace(TEACHER, yarn_scale=1.0)}, {}, InputError, r"dit\.yarn_scale=2\.0, the"),
        ({"judged_latents": 7}, {}, ConfigError, r"config\.distill\.judged_latents=7: expected 2 to 6, the latents of"),
        (
            {"steadiness": 1.0, "steadiness_latents": 2, "steadiness_bands": 3},
            {},
            ConfigError,
            r"config\.distill\.steadiness_bands=3: expected 1 to 2, two waves or more in each, of pictures of \(4, 6\)",
        ),
        (
            {"steadiness": 1.0, "steadiness_latents": 2, "steadiness_bands": 2, "steadiness_spectrum": True},
            {},
            ConfigError,
            "steadiness_spectrum is of single waves, steadiness_bands of bands: set one",
        ),
        ({"openings": 1.0}, {}, ConfigError, r"config\.distill\.openings_data is empty"),
        (
            {"openings": 1.0, "openings_data": "clips", "openings_latents": 5},
            {},
            ConfigError,
            r"config\.distill\.openings_latents=5 is not a multiple of model\.stream\.block=2",
        ),
        (
            {"openings": 1.0, "openings_data": "clips", "micro_batch": 2, "openings_batch": 3},
            {},
            ConfigError,
            r"config\.distill\.openings_batch=3 is not a multiple of distill\.micro_batch=2",
        ),
        ({"openings": 1.0, "openings_data": "/nowhere"}, {}, InputError, "/nowhere: expected a data set made by"),
        ({"teacher": "/nowhere"}, {}, InputError, "/nowhere holds no weights"),
        ({}, {"mesh": "fsdp=2"}, ConfigError, r"distill\.micro_batch=1 can't be divided over data=1 x fsdp=2 devices"),
        ({"offload_teacher": True}, {}, ConfigError, r"config\.distill\.offload_teacher=True needs config\.mesh"),
        ({"critic_dit": TEACHER}, {}, InputError, r"critic\.safetensors doesn't fit the config: .* has shape"),
    ],
)
def test_bad_input_before_any_compile(data, options, changed, error, sentence):
    with pytest.raises(error, match=sentence):
        stages.make(config(data, options, **changed))


def test_data_shorter_than_the_horizon(data):
    of_long = {"teacher": str(data / "student.safetensors"), "teacher_dit": None, "critic": "", "critic_dit": None}
    with pytest.raises(InputError, match="clips, record 0: expected clips of 8 latents, got one of 6"):
        stages.make(config(data, of_long, frames=29))


def test_predecessor_without_checkpoint(data, tmp_path):
    cfg = config(data, init_from=str(tmp_path / "student"))
    with pytest.raises(InputError, match="student holds no weights; expected a training run's workdir"):
        loop.train(cfg, stages.make(cfg), tmp_path)


def test_program_says_it_in_one_sentence(tmp_path):
    command = ["--config=configs/tiny_distill_10s.py", "--config.frames=161", f"--workdir={tmp_path}/run"]
    done = subprocess.run(
        [sys.executable, "-m", "launch.train", *command],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    sentence = "error: config.frames=161 are 41 latents, expected a multiple of model.stream.block=4"
    assert done.stderr.startswith(sentence)


def test_config_files_are_a_chain():
    seconds, previous = {5: 20, 10: 40, 20: 80}, "runs/tiny_ode"
    for length, latents in seconds.items():
        name = f"tiny_distill_{length}s"
        spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
        file = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(file)
        cfg = from_config_dict(stages.TrainConfig, file.get_config())
        assert from_config_dict(stages.TrainConfig, dataclasses.asdict(cfg)) == cfg
        assert cfg.stage == "distill" and cfg.model.vae.latents_of(cfg.frames) == latents and cfg.init_from == previous
        # No guidance: a sentence changes less than a hundredth of the tiny teacher's loss, guiding doubles the cost.
        assert (cfg.distill.generator_every, cfg.distill.guidance, cfg.distill.shift) == (5, 1.0, 5.0)
        assert (cfg.betas, cfg.weight_decay, cfg.clip, cfg.ema) == ((0.0, 0.999), 0.01, 10.0, 0.9)
        previous = f"runs/{name}"
