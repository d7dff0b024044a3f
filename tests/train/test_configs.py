"""Every configuration file of the training chain describes a run, and the runs fit together."""

import dataclasses
import importlib.util
import runpy
from pathlib import Path

import pytest

from relic_jax.config import MEMORIES, ConfigError, MemoryConfig, RelicConfig, from_config_dict
from relic_jax.models.rope import temporal_frequencies
from relic_jax.train.stage import TrainConfig
from relic_jax.train.trajectories import TrajectoryConfig

CONFIGS = Path(__file__).parents[2] / "configs"
SIZES = {"tiny": RelicConfig.tiny(), "wan_1_3b": RelicConfig.wan_1_3b(), "wan_14b": RelicConfig.wan_14b()}
FIRST = {"tiny": "teacher_5s", "wan_1_3b": "teacher", "wan_14b": "teacher"}
SECONDS = {"_5s": 81, "_10s": 157, "_20s": 317}


def load(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config()
    return module, from_config_dict(TrajectoryConfig if values["stage"] == "ode_data" else TrainConfig, values)


@pytest.mark.parametrize("size", SIZES)
def test_each_stage_begins_where_the_last_one_ended(size):
    first = FIRST[size]
    runs = {name: load(f"{size}_{name}")[1] for name in (first, "teacher_10s", "teacher_20s", "ode_data", "ode")}
    # The tiny student learns on clips to be block-causal before it meets trajectories.
    start = "causal_20s" if size == "tiny" else "teacher_20s"
    before = {"teacher_10s": first, "teacher_20s": "teacher_10s", "ode": start}
    for name, predecessor in before.items():
        assert runs[name].init_from == f"runs/{size}_{predecessor}"
    if size == "tiny":
        student = load("tiny_causal_20s")[1]
        assert student.model.dit == runs["ode"].model.dit and student.frames == runs["ode"].frames
        assert student.init_from == "runs/tiny_causal_last"
    assert runs["ode"].data == f"runs/{size}_ode_data" and runs["ode_data"].teacher == f"runs/{size}_teacher_20s"
    assert runs["ode"].model.dit == runs["ode_data"].model.dit == runs["teacher_20s"].model.dit
    assert runs["ode"].model.stream == runs["ode_data"].model.stream
    for name, seconds in ((first, "_5s"), ("teacher_10s", "_10s"), ("teacher_20s", "_20s")):
        run = runs[name]
        assert run.frames == SECONDS[seconds] and run.model.dit.dim == SIZES[size].dit.dim
        assert run.model.dit.yarn_scale == pytest.approx(max(1, run.model.vae.latents_of(run.frames) / 21))
    assert runs["ode"].frames == runs["ode_data"].frames == 317
    quarter = runs["ode_data"].steps // 4
    assert runs["ode_data"].kept == (0, quarter, 2 * quarter, 3 * quarter)
    assert runs["ode_data"].steps == (16 if size == "tiny" else 48)


def test_the_vaes_stages_follow_each_other_and_end_in_what_ships():
    before = "runs/tiny_vae"
    for name in ("long", "fine", "last", "decoder", "final", "deep", "deep_long"):
        run = load(f"tiny_vae_{name}")[1]
        grown = name == "deep"  # launch.export grow lies between
        assert run.init_from == ("data/vae_grown.safetensors" if grown else before)
        before = f"runs/tiny_vae_{name}"
    shipped = from_config_dict(RelicConfig, runpy.run_path(str(CONFIGS / "tiny.py"))["get_config"]())
    assert run.model.vae == shipped.vae != RelicConfig.tiny().vae


@pytest.mark.parametrize("size", SIZES)
def test_distillation_goes_through_the_lengths(size):
    student = load(f"{size}_ode")[1].model.dit
    before = f"runs/{size}_ode"
    for seconds, teacher in (("_5s", FIRST[size]), ("_10s", "teacher_10s"), ("_20s", "teacher_20s")):
        run, judge = load(f"{size}_distill{seconds}")[1], load(f"{size}_{teacher}")[1]
        assert run.init_from == before and run.model.dit == student
        assert run.distill.teacher == f"runs/{size}_{teacher}"
        assert (run.distill.teacher_dit or student) == judge.model.dit and run.frames <= judge.frames
        assert run.model.vae.latents_of(run.frames) % run.model.stream.block == 0 and run.distill.generator_every == 5
        before = f"runs/{size}_distill{seconds}"
    if size == "tiny":
        for name in ("opening", "last", "long", "steady", "beyond", "final"):
            run = load(f"tiny_distill_{name}")[1]
            assert run.init_from == before and run.model.dit == student
            before = f"runs/tiny_distill_{name}"


CHAIN = sorted(path for stage in ("teacher", "ode", "distill") for path in CONFIGS.glob(f"*_{stage}*.py"))


@pytest.mark.parametrize("path", CHAIN, ids=lambda path: path.stem)
def test_docstrings_say_how_it_is_run(path):
    module, _ = load(path.stem)
    assert f"--config=configs/{path.name} --workdir=runs/{path.stem}" in module.__doc__
    words = ["Data:", "Command:", "Hardware:", "Result:"]
    words += ["Memory:", "not run"] if path.stem.startswith("wan") else []
    assert [word for word in words if word not in module.__doc__] == []


def test_five_seconds_are_wans_own_positions_and_twenty_are_stretched():
    model = RelicConfig.wan_14b()
    five, twenty = (temporal_frequencies(model.stretched(length).dit) for length in (21, 80))
    assert (five == temporal_frequencies(RelicConfig().dit)).all()
    assert twenty[0] == five[0] and twenty[-1] == pytest.approx(five[-1] * 21 / 80)


def test_kinds_of_memory_differ_in_nothing_else():
    module, _ = load("tiny_distill_long")
    runs = [from_config_dict(TrainConfig, module.get_config(memory)) for memory in MEMORIES]
    kinds = {(run.model.memory.mode, run.model.memory.compress) for run in runs}
    assert kinds == {("relic", "latent"), ("window", "latent"), ("full", "latent"), ("relic", "kv")}
    same = dataclasses.replace(runs[0].model, memory=MemoryConfig())
    for run in runs:
        model = dataclasses.replace(run.model, memory=MemoryConfig())
        assert dataclasses.replace(run, model=model) == dataclasses.replace(runs[0], model=same)
    with pytest.raises(ConfigError, match="'none' is not one of relic, window, full, relic_kv, plain"):
        module.get_config("none")
