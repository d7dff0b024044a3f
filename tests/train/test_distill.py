"""Stage `distill` on clips of random numbers: the student's gradient, what each step changes, exact resumption."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError
from relic_jax.errors import InputError
from relic_jax.models import weights
from relic_jax.models.dit import DiT
from relic_jax.rng import Streams, streams
from relic_jax.stream import rollout as stream
from relic_jax.train import abstract, checkpoint, collapse, loop, metrics, replay, run
from relic_jax.train.distill import DistillConfig, DistillStage
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.terms import regression, score
from tests.small import frames_of
from tests.train import encoded

pytestmark = pytest.mark.usefixtures("compile_once")
LATENTS = 6  # three blocks: the last one has memory
FRAMES = frames_of(LATENTS)
MODEL = encoded.model()
TEACHER = dataclasses.replace(encoded.DIT, dim=16, ffn_dim=24, layers=1, yarn_scale=2.0)
ADAM = OptimizerConfig(learning_rate=1e-3, betas=(0.0, 0.999), clip=10.0)
REGRESSION = regression.Config(weight=2.0, latents=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips, a VAE, a student, and a teacher of another size."""
    folder = tmp_path_factory.mktemp("distill")
    encoded.write(folder, MODEL, LATENTS)
    of_teacher = {"config": json.dumps({"frames": FRAMES + 4, "model": {"dit": dataclasses.asdict(TEACHER)}})}
    weights.save_safetensors(str(folder / "teacher.safetensors"), encoded.random_params(DiT, TEACHER), of_teacher)
    return folder


@pytest.fixture(autouse=True)
def anything_goes(monkeypatch):
    """A student of random weights is unlike any clip."""
    monkeypatch.setattr(collapse, "LIMITS", dict.fromkeys(collapse.LIMITS, (0.0, np.inf)))


def config(data, of_score=None, of_regression=None, **changed):
    teacher = {"teacher": str(data / "teacher.safetensors"), "teacher_dit": TEACHER, "guidance": 2.0}
    terms = {"score": score.Config(**teacher | (of_score or {})), "regression": of_regression}
    values = {
        "stage": "distill", "model": MODEL, "vae": str(data / "vae.safetensors"), "data": str(data / "clips"),
        "data_val": str(data / "clips"), "init_from": str(data / "student.safetensors"), "steps": 4, "batch": 2,
        "micro_batch": 1, "frames": FRAMES, "optimizer": ADAM, "critic_optimizer": ADAM, "terms": terms,
        "generator_every": 2, "ema": 0.99, "ema_start": 3, "log_every": 1, "sample_every": 4, "save_every": 2,
    }  # fmt: skip
    return DistillConfig(**(values | changed))


def begun(cfg):
    """The stage, its state before the first step, its frozen weights and a batch."""
    stage = run.make(cfg)
    shapes = stage.abstract()
    frozen = stage.load(abstract.place(shapes.frozen, None))
    params = encoded.random_params(DiT, cfg.model.dit)
    batch = jax.tree.map(jnp.asarray, next(stage.batches(0)))
    return stage, stage.init(params, frozen), frozen, batch


def same(a, b):
    return all(bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def dot(a, b):
    return sum(float((x * y).sum()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


class Known(score.Term):
    """A score whose gradient is known, whatever the noise: the sine of each number."""

    def gradient(self, sample, models, key):
        return jnp.sin(3 * sample.rollout.latents).at[:, 0].set(0), {}


@pytest.fixture(scope="module")
def made(data):
    """A step's samples and the gradient that the stage takes from them, with a known score and regression."""
    stage, state, frozen, batch = begun(config(data, of_regression=REGRESSION))
    stage.terms["score"] = Known(stage.score.cfg, MODEL)
    rng = streams(jax.random.key(3), 0)
    samples = jax.jit(lambda *given: stage.roll_out(*given, rng))(state.params, frozen, batch)
    gradient, scalars = jax.jit(lambda *given: stage.generator_gradient(*given, rng))(state, frozen, samples)
    return stage, state, frozen, samples, gradient, scalars


class TestTheStudentsGradient:
    """Sign, weight and normalisation of the update, which no test of a term alone can see."""

    def replayed(self, made, wanted):
        """The gradient of what is wanted of each sample's latents, by replay, a mean over samples and numbers."""
        _, state, _, samples, *_ = made
        replay_gradient, total = jax.jit(replay.replay_gradient, static_argnames="cfg"), None
        for i, of_latents in enumerate(wanted):
            one = jax.tree.map(lambda x, i=i: x[i], samples.rollout)
            blocks = stream.split(of_latents / of_latents[:, 1:].size, MODEL.stream.block)
            gradient, _ = replay_gradient(state.params, MODEL, one, blocks)
            total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
        return jax.tree.map(lambda g: g / len(wanted), total)

    def test_it_is_the_weighted_sum_of_the_terms_replayed_one_by_one(self, made):
        _, _, _, samples, gradient, _ = made
        wanted = {"score": [], "regression": []}
        for video, clip in zip(jax.vmap(stream.join)(samples.rollout.clean), samples.clips["latents"], strict=True):
            wanted["score"].append(jnp.sin(3 * video).at[:, 0].set(0))
            wanted["regression"].append(jnp.zeros_like(video).at[:, 1:3].set((video - clip)[:, 1:3]))
        score_alone, regression_alone = (self.replayed(made, wanted[name]) for name in wanted)
        expected = jax.tree.map(lambda s, r: s + REGRESSION.weight * r, score_alone, regression_alone)
        for got, want in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()) + 1e-9)
        # Neither is negligible beside the other, so a wrong weight or sign of either would be seen.
        assert dot(score_alone, score_alone) > 1e-3 * dot(gradient, gradient)
        assert dot(regression_alone, regression_alone) > 1e-3 * dot(gradient, gradient)

    def test_it_agrees_with_a_finite_difference(self, made):
        """Of a loss whose gradient by the video is what the terms say, along itself; the cache is held."""
        _, state, _, samples, gradient, _ = made

        @jax.jit
        def loss(params):
            total = 0.0
            for i in range(2):
                one = jax.tree.map(lambda x, i=i: x[i], samples)
                video = stream.join(last_evaluations(params, state.params, one.rollout))
                error = (video - one.clips["latents"])[:, 1:3]
                total += (-jnp.cos(3 * video[:, 1:]).sum() / 3 + REGRESSION.weight * (error**2).sum() / 2) / (
                    video[:, 1:].size
                )
            return total / 2

        norm = dot(gradient, gradient) ** 0.5
        step = 1e-2 / norm
        moved = [loss(jax.tree.map(lambda p, g, s=s: p + s * g, state.params, gradient)) for s in (step, -step)]
        np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), norm**2, rtol=1e-2)

    def test_the_scalars_are_means_over_the_samples(self, made):
        _, _, _, samples, _, scalars = made
        error = jax.vmap(stream.join)(samples.rollout.clean) - samples.clips["latents"]
        expected = (error[:, :, 1:3] ** 2).sum() / 2 / error[:, :, 1:].size
        np.testing.assert_allclose(scalars["regression"], expected, rtol=1e-4)

    def test_an_update_goes_against_it(self, made):
        """Adam without first moment: each number moves by the rate against the sign of its gradient."""
        stage, state, frozen, samples, gradient, _ = made
        after, _ = jax.jit(stage.update_generator)(state, frozen, samples, jax.random.key(3))
        moved = jax.tree.map(lambda new, old: new - old, after.params, state.params)
        assert dot(moved, gradient) < -0.5 * sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(gradient)) * 1e-3
        assert after.step == state.step


@jax.jit
def last_evaluations(params, cached_by, rollout):
    """A rollout's clean latents as a function of the parameters, the cache written by others."""
    size = MODEL.stream.block
    given = rollout.conditions
    state, made = stream.start(MODEL, rollout.clean[0, :, 0], given.text, jax.random.key(0), given.pose_weight), []
    for i in range(len(rollout.clean)):
        conditions = given.at(slice(i * size, (i + 1) * size))
        made.append(stream.predict(params, MODEL, state, rollout.noisy[i], rollout.exit_step, conditions)[0])
        state = stream.write(cached_by, MODEL, state, rollout.clean[i], conditions)
    return jnp.stack(made)


def test_critic_learns_at_every_step_and_the_student_at_every_second(data):
    stage, state, frozen, _ = begun(config(data))
    step, batches, exits = loop.make_step(stage, jax.random.key(0)), stage.batches(0), set()
    for number in range(1, 5):
        before = jax.tree.map(jnp.copy, state)
        state, scalars = step(state, frozen, next(batches))
        turn = number % 2 == 0
        assert state.step == number
        assert not same(state.critic, before.critic)
        assert same(state.params, before.params) == (not turn)
        assert bool(jnp.isnan(scalars["generator_gradient_norm"])) == (not turn)
        assert bool(jnp.isnan(scalars["dmd_gradient"])) == (not turn)
        assert scalars["loss"] > 0 and scalars["gradient_norm"] > 0
        if turn and number <= 3:
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


def test_the_critic_learns_on_the_students_video(data, monkeypatch):
    """Its loss, here the mean of what it is shown, is that of the rollouts, a mean over them."""
    stage, state, frozen, batch = begun(config(data))
    samples = jax.jit(lambda *given: stage.roll_out(*given, streams(jax.random.key(7))))(state.params, frozen, batch)
    monkeypatch.setattr(score, "critic_loss", lambda critic, video, *_: video.mean())
    _, scalars = stage.update_critic(state, samples, streams(jax.random.key(7)))
    np.testing.assert_allclose(scalars["loss"], samples.rollout.clean.mean(), rtol=1e-5)


def test_resumes_exactly(data, tmp_path):
    cfg = config(data, of_regression=REGRESSION)
    straight = encoded.resumes_exactly(cfg, tmp_path)
    rows = metrics.read(straight)
    assert [("generator_gradient_norm" in row) for row in rows[:4]] == [False, True, False, True]
    assert {"val_psnr_db", "val_gain_db"} <= rows[-1].keys()
    assert set(collapse.LIMITS) <= rows[0].keys()
    assert list((straight / "samples").glob("*.png"))
    assert json.loads((straight / "config.json").read_text())["terms"]["regression"]["weight"] == 2.0
    heavier = dataclasses.replace(REGRESSION, weight=3.0)
    with pytest.raises(ConfigError, match=r"config\.terms\.regression\.weight=2\.0, this one has .*=3\.0"):
        checkpoint.Checkpoints(straight, config(data, of_regression=heavier), 2)


def test_poses_are_dropped_from_a_share_of_the_rollouts(data):
    for share in (0.0, 0.5):
        stage, state, frozen, batch = begun(config(data, pose_drop=share, batch=16))
        roll_out = jax.jit(lambda *given, stage=stage: stage.roll_out(*given, streams(jax.random.key(0))))
        samples = roll_out(state.params, frozen, batch)
        given = {*np.asarray(samples.rollout.conditions.pose_weight).ravel().tolist()}
        assert given == ({0.0, 1.0} if share else {1.0})


def test_no_key_is_drawn_twice(data, monkeypatch):
    """What drops a pose, draws noise or a level each asks its stream for another name."""
    stage, state, frozen, batch = begun(config(data, pose_drop=0.5))
    get, asked = Streams.__getitem__, []

    def record(self, name):
        asked.append((self, name))
        return get(self, name)

    monkeypatch.setattr(Streams, "__getitem__", record)
    rng = streams(jax.random.key(0), 0)
    jax.jit(lambda *given: stage.roll_out(*given, rng)).trace(state.params, frozen, batch)
    assert {"exit_step", "micro_batches", "pose_drop", "rollout", "sub_clip"} <= {name for _, name in asked}
    assert len({(id(one), name) for one, name in asked}) == len(asked)


def test_teacher_and_critic_see_whole_rollouts_or_sub_clips(data):
    samples = {}
    for latents in (None, LATENTS, LATENTS - 4):
        stage, state, frozen, batch = begun(config(data, {"sub_clip": latents}, batch=4))
        roll_out = jax.jit(lambda *given, stage=stage: stage.roll_out(*given, streams(jax.random.key(5))))
        samples[latents] = roll_out(state.params, frozen, batch)
    whole, as_long, sub_clip = (samples[n].seen for n in (None, LATENTS, LATENTS - 4))
    for all_of_it, same_length in zip(jax.tree.leaves(whole), jax.tree.leaves(as_long), strict=True):
        np.testing.assert_allclose(all_of_it, same_length, atol=1e-6)
    assert set(np.asarray(sub_clip.start)) == {0, 4}  # of four clips, some begin at each
    for start, seen, video in zip(sub_clip.start, sub_clip.latents, whole.latents, strict=True):
        np.testing.assert_array_equal(seen[:, 1:], video[:, start + 1 : start + LATENTS - 4])
    np.testing.assert_array_equal(sub_clip.conditions.text, whole.conditions.text)


def test_collapse_stops(data):
    made = run.make(config(data))
    made.check({name: 1.0 for name in collapse.LIMITS})
    collapse.LIMITS["detail"] = (0.2, 5.0)
    with pytest.raises(collapse.Collapse, match="detail of its video is 0.1 times that of real clips"):
        made.check({name: 1.0 for name in collapse.LIMITS} | {"detail": 0.1})


def test_a_plan_of_the_step_needs_nothing_on_disk():
    """The stage of a configuration whose files don't exist describes and traces its step."""
    cfg = DistillConfig(
        stage="distill", model=MODEL, data="", data_val="", steps=1, batch=1, frames=FRAMES, optimizer=ADAM,
        critic_optimizer=ADAM, terms={"score": score.Config(teacher="")},
    )  # fmt: skip
    stage = DistillStage(cfg)
    shapes = stage.abstract()
    given = [abstract.place(tree, None) for tree in (shapes.state, shapes.frozen, shapes.batch)]
    after, _ = jax.eval_shape(lambda *given: stage.step(*given, streams(jax.random.key(0))), *given)
    for before, kept in zip(jax.tree.leaves(given[0]), jax.tree.leaves(after), strict=True):
        assert (before.shape, before.dtype) == (kept.shape, kept.dtype)


@pytest.mark.parametrize(
    ("of_score", "changed", "error", "sentence"),
    [
        ({}, {"init_from": ""}, ConfigError, r"config\.init_from is empty: stage distill starts from the weights of"),
        ({"teacher": ""}, {}, ConfigError, r"config\.terms\.score\.teacher is empty"),
        ({"guidance": -1.0}, {}, ConfigError, r"config\.terms\.score\.guidance=-1\.0 must be above 0"),
        ({"sub_clip": 1}, {}, ConfigError, r"config\.terms\.score\.sub_clip=1: expected 2 latents or more"),
        ({"sub_clip": 7}, {}, ConfigError, r"config\.terms\.score\.sub_clip=7: expected at most 6, the latents of"),
        ({}, {"terms": {"score": None}}, ConfigError, r"config\.terms\.score is missing: the critic learns for it"),
        ({}, {"terms": {"sharpness": {}}}, ConfigError, r"config\.terms\.sharpness: no such term; expected score"),
        ({}, {"frames": 17}, ConfigError, r"config\.frames=17 are 5 latents, expected a multiple of .*block=2"),
        ({}, {"frames": 18}, ConfigError, r"config\.frames=18: expected 4 L \+ 1 frames"),
        ({}, {"micro_batch": 3}, ConfigError, r"config\.batch=2 is not a multiple of config\.micro_batch=3"),
        ({}, {"micro_batch": 0}, ConfigError, r"config\.micro_batch=0 must be at least 1"),
        ({}, {"pose_drop": 2.0}, ConfigError, r"config\.pose_drop=2\.0 must lie between 0 and 1"),
        (
            {},
            {"optimizer": dataclasses.replace(ADAM, schedule="cosine")},
            ConfigError,
            "stage distill has a constant learning rate",
        ),
        ({}, {"frames": 29}, InputError, r"teacher\.safetensors: the teacher was trained on clips of 25 frames, exp"),
        ({"teacher_dit": dataclasses.replace(TEACHER, yarn_scale=1.0)}, {}, InputError, r"yarn_scale=2\.0, the con"),
        ({"teacher": "/nowhere"}, {}, InputError, "/nowhere holds no weights"),
        ({}, {"mesh": "fsdp=2"}, ConfigError, r"config\.micro_batch=1 can't be divided over data=1 x fsdp=2 devices"),
    ],
)
def test_bad_input_before_any_compile(data, of_score, changed, error, sentence):
    with pytest.raises(error, match=sentence):
        run.make(config(data, of_score, **changed))


def test_data_shorter_than_the_rollout(data):
    long = {"teacher": str(data / "student.safetensors"), "teacher_dit": None}
    with pytest.raises(InputError, match="clips, record 0: expected clips of 8 latents, got one of 6"):
        run.make(config(data, long, frames=29))


def test_predecessor_without_checkpoint(data, tmp_path):
    cfg = config(data, init_from=str(tmp_path / "student"))
    with pytest.raises(InputError, match="student holds no weights; expected a training run's workdir"):
        loop.train(run.make(cfg), tmp_path)
