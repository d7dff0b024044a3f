"""Stage `distill` on clips of random numbers: the student's gradient, what each step changes, exact resumption."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import ConfigError
from relic_jax.diffusion import flow
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


@pytest.fixture(scope="module")
def made(data):
    """A step's samples and the gradient that the stage takes from them, with both terms."""
    stage, state, frozen, batch = begun(config(data, of_regression=REGRESSION))
    rng = streams(jax.random.key(3), 0)
    samples = jax.jit(lambda params, frozen, batch: stage.roll_out(params, frozen, batch, rng))(
        state.params, frozen, batch
    )
    gradient, scalars = jax.jit(lambda *given: stage.generator_gradient(*given, rng))(state, frozen, samples)
    return stage, state, frozen, samples, gradient, scalars, rng


class TestTheStudentsGradient:
    """Sign, weight and normalisation of the update, which no test of a term alone can see."""

    def replayed(self, made, wanted):
        """The gradient of what is wanted of each sample's latents, by replay, a mean over samples and numbers."""
        stage, state, _, samples, *_ = made
        total = None
        for i, of_latents in enumerate(wanted):
            one = jax.tree.map(lambda x, i=i: x[i], samples.rollout)
            blocks = stream.split(of_latents / of_latents[:, 1:].size, MODEL.stream.block)
            gradient, _ = jax.jit(replay.replay_gradient, static_argnames="cfg")(state.params, MODEL, one, blocks)
            total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
        return jax.tree.map(lambda g: g / len(wanted), total)

    def test_it_is_the_weighted_sum_of_the_terms_replayed_one_by_one(self, made):
        stage, state, frozen, samples, gradient, _, rng = made
        models = {"teacher": frozen["teacher"], "critic": state.critic}
        wanted = {"score": [], "regression": []}
        keys = jax.random.split(rng["terms"], 2)
        for i in range(2):
            one = jax.tree.map(lambda x, i=i: x[i], samples)
            wanted["score"].append(stage.terms["score"].gradient(one, models, Streams(keys[i])["score"])[0])
            error = jnp.zeros_like(one.rollout.latents)
            error = error.at[:, 1:3].set((one.rollout.latents - one.clips["latents"])[:, 1:3])
            wanted["regression"].append(error)
        score_alone, regression_alone = (self.replayed(made, wanted[name]) for name in wanted)
        expected = jax.tree.map(lambda s, r: s + REGRESSION.weight * r, score_alone, regression_alone)
        for got, want in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()) + 1e-9)
        # Neither is negligible beside the other, so a wrong weight or sign of either would be seen.
        assert dot(score_alone, score_alone) > 1e-4 * dot(gradient, gradient)
        assert dot(regression_alone, regression_alone) > 1e-4 * dot(gradient, gradient)

    def test_it_agrees_with_a_finite_difference(self, made):
        """Of the loss that it is the gradient of, along itself: cache and scores held, the error to the clip not."""
        stage, state, frozen, samples, gradient, _, rng = made
        models = {"teacher": frozen["teacher"], "critic": state.critic}
        keys = jax.random.split(rng["terms"], 2)

        @jax.jit
        def loss(params):
            total = 0.0
            for i in range(2):
                one = jax.tree.map(lambda x, i=i: x[i], samples)
                held = stage.terms["score"].gradient(one, models, Streams(keys[i])["score"])[0]
                video = stream.join(last_evaluations(params, state.params, one.rollout))
                error = (video - one.clips["latents"])[:, 1:3]
                total += ((held * video).sum() + REGRESSION.weight * (error**2).sum() / 2) / video[:, 1:].size
            return total / 2

        norm = dot(gradient, gradient) ** 0.5
        step = 1e-3 / norm
        moved = [loss(jax.tree.map(lambda p, g, s=s: p + s * g, state.params, gradient)) for s in (step, -step)]
        np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), norm**2, rtol=5e-3)

    def test_the_scalars_are_means_over_the_samples(self, made):
        _, _, _, samples, _, scalars, _ = made
        video = jax.vmap(stream.join)(samples.rollout.clean)
        error = video - samples.clips["latents"]
        np.testing.assert_allclose(
            scalars["regression"], (error[:, :, 1:3] ** 2).sum() / 2 / error[:, :, 1:].size, rtol=1e-4
        )

    def test_an_update_goes_against_it(self, data, made):
        """Adam without first moment: each number moves by the rate against the sign of its gradient."""
        stage, state, frozen, samples, gradient, *_, rng = made
        after, _ = jax.jit(lambda *given: stage.update_generator(*given, rng.key))(state, frozen, samples)
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


def test_critics_loss_is_flow_matching_on_the_students_video(data):
    """By hand: the critic starts as the teacher, and its first loss is that of the samples it was given."""
    stage, state, frozen, batch = begun(config(data))
    rng = streams(jax.random.key(7), 0)
    samples = jax.jit(lambda *given: stage.roll_out(*given, rng))(state.params, frozen, batch)
    _, scalars = jax.jit(lambda *given: stage.update_critic(*given, rng))(state, samples)
    model = encoded.bound(TEACHER, frozen["teacher"])
    losses = []
    for i, key in enumerate(jax.random.split(rng["critic"], 2)):
        one = jax.tree.map(lambda x, i=i: x[i], samples)
        video, drawn = one.rollout.latents, streams(key)
        level = 5 * (u := jax.random.uniform(drawn["level"], (1, 1))) / (1 + 4 * u)
        level = jnp.tile(jnp.clip(level, 0.02, 0.98), (1, LATENTS)).at[:, 0].set(0)
        noise = jax.random.normal(drawn["noise"], video.shape)
        noisy = flow.add_noise(video, noise, level)
        predicted = model.video(noisy, 1000 * level, one.rollout.conditions)
        losses.append(((predicted - (noise - video))[:, 1:] ** 2).mean())
    np.testing.assert_allclose(scalars["loss"], np.mean(losses), rtol=1e-4)


def test_resumes_exactly(data, tmp_path):
    cfg = config(data, of_regression=REGRESSION)
    straight, halved = tmp_path / "straight", tmp_path / "halved"
    for workdir in (straight, halved):
        workdir.mkdir()
    result = loop.train(run.make(cfg), straight)
    assert result["steps"] == 4 and result["loss"] > 0
    stopped = run.make(cfg)
    stopped.batches = lambda seed, part: encoded.Stopping(run.make(cfg).batches(seed, part), 3)
    with pytest.raises(KeyboardInterrupt):  # stops hard at the fourth batch, after the checkpoint of step 2
        loop.train(stopped, halved)
    loop.train(run.make(cfg), halved)
    assert (straight / "metrics.jsonl").read_bytes() == (halved / "metrics.jsonl").read_bytes()
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


def test_what_drops_a_pose_draws_no_noise_too(data):
    """The keys of a rollout's noise and of its dropped poses are different ones."""
    drawn = []
    stage, state, frozen, batch = begun(config(data, pose_drop=0.5))

    class Recording(Streams):
        def __getitem__(self, name):
            drawn.append(name)
            return super().__getitem__(name)

    jax.eval_shape(lambda *given: stage.step(*given, Recording(jax.random.key(0))), state, frozen, batch)
    assert {"exit_step", "micro_batches", "critic"} <= set(drawn) and len(drawn) == len(set(drawn))


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
