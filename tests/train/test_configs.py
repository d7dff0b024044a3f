"""Every configuration file describes a run, whole, and the runs of a chain fit together."""

import dataclasses
import re
import runpy
from pathlib import Path

import pytest

from relic_jax.config import ConfigError, RelicConfig, from_config_dict
from relic_jax.data.trajectories import TrajectoryConfig
from relic_jax.models.rope import temporal_frequencies
from relic_jax.train import run as runs

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.py") if path.name != "__init__.py")
LENGTHS = {"5s": 21, "10s": 40, "20s": 80}
SIZES = {"tiny": RelicConfig.tiny(), "wan_1_3b": RelicConfig.wan_1_3b(), "wan_14b": RelicConfig.wan_14b()}


def arguments(path):
    """What may stand after the file's name and a colon."""
    file = runpy.run_path(str(path))
    return list(next((file[name] for name in ("MESHES", "LENGTHS", "SIZES") if name in file), [None]))


ALL = [(path, argument) for path in FILES for argument in arguments(path)]


def load(path, argument=None):
    values = runpy.run_path(str(path))["get_config"](*([argument] if argument else []))
    stage = values.get("stage")
    if stage is None:
        return from_config_dict(RelicConfig, values)
    return from_config_dict(TrajectoryConfig if stage == "ode_data" else runs.config_class(stage), values)


def of(size, stage, length=None):
    """The run of a stage at a size."""
    family, _, name = size.partition("_")
    argument = ",".join(filter(None, (name, length))) or None
    return load(CONFIGS / f"{family}_{stage}.py", argument)


def test_the_files_are_few_and_stand_alone():
    assert len(FILES) <= 14
    for path in FILES:
        assert "import configs" not in path.read_text() and "from configs" not in path.read_text()


@pytest.mark.parametrize(("path", "argument"), ALL, ids=lambda x: getattr(x, "stem", x))
def test_each_describes_a_run_and_says_how(path, argument):
    cfg = load(path, argument)
    assert from_config_dict(type(cfg), dataclasses.asdict(cfg)) == cfg
    doc = runpy.run_path(str(path))["__doc__"]
    assert f"--config=configs/{path.name}" in doc and ("Result:" in doc or "result" in doc)
    if argument:
        assert re.search(rf"^\| {re.escape(argument)} +\|", doc, re.MULTILINE), "no row for it in the docstring's table"


@pytest.mark.parametrize("path", [path for path in FILES if arguments(path) != [None]], ids=lambda path: path.stem)
def test_an_unknown_argument_is_said(path):
    with pytest.raises(ConfigError, match=f"{path.name}:30s: expected one of "):
        runpy.run_path(str(path))["get_config"]("30s")


@pytest.mark.parametrize("size", SIZES)
def test_each_stage_begins_where_the_last_one_ended(size):
    teachers = {length: of(size, "teacher", length) for length in LENGTHS}
    for length, before in (("10s", "5s"), ("20s", "10s")):
        assert teachers[length].init_from == f"runs/{size}_teacher_{before}"
    for length, latents in LENGTHS.items():
        cfg = teachers[length]
        assert cfg.model.vae.latents_of(cfg.frames) == latents
        assert cfg.model.dit == SIZES[size].stretched(latents).dit
    data, ode = of(size, "ode_data"), of(size, "ode")
    assert data.teacher == f"runs/{size}_teacher_20s" and ode.data == f"runs/{size}_ode_data"
    # A tiny student learns on clips to be block-causal before it meets trajectories.
    assert ode.init_from == ("runs/tiny_causal" if size == "tiny" else f"runs/{size}_teacher_20s")
    assert ode.model.dit == data.model.dit == teachers["20s"].model.dit
    assert ode.model.stream == data.model.stream and ode.frames == data.frames == 317
    quarter = data.steps // 4
    assert data.kept == (0, quarter, 2 * quarter, 3 * quarter) and data.steps == (16 if size == "tiny" else 48)
    if size == "tiny":
        causal = of("tiny", "causal")
        assert causal.init_from == "runs/tiny_teacher_20s" and causal.model.dit == ode.model.dit


@pytest.mark.parametrize("size", SIZES)
def test_distillation_goes_through_the_lengths(size):
    before = f"runs/{size}_ode"
    for length in LENGTHS:
        cfg, teacher = of(size, "distill", length), of(size, "teacher", length)
        assert cfg.init_from == before and cfg.model.dit == of(size, "ode").model.dit
        assert list(cfg.terms) == ["score"]  # the paper's loss alone
        assert cfg.terms["score"].teacher == f"runs/{size}_teacher_{length}"
        assert cfg.terms["score"].teacher_dit == teacher.model.dit and cfg.frames <= teacher.frames
        assert cfg.model.vae.latents_of(cfg.frames) % cfg.model.stream.block == 0 and cfg.generator_every == 5
        assert (cfg.optimizer.betas, cfg.optimizer.weight_decay, cfg.optimizer.clip) == ((0.0, 0.999), 0.01, 10.0)
        before = f"runs/{size}_distill_{length}"


def test_the_vae_is_trained_on_short_then_on_long_windows():
    short, long = of("tiny", "vae", "short"), of("tiny", "vae", "long")
    assert long.init_from == "runs/tiny_vae_short" and short.frames < long.frames and short.model == long.model


def test_five_seconds_are_wans_own_positions_and_twenty_are_stretched():
    model = RelicConfig.wan_14b()
    five, twenty = (temporal_frequencies(model.stretched(length).dit) for length in (21, 80))
    assert (five == temporal_frequencies(RelicConfig().dit)).all()
    assert twenty[0] == five[0] and twenty[-1] == pytest.approx(five[-1] * 21 / 80)


def test_every_option_of_a_run_is_set_by_some_config():
    """But for those that every run has a use for, whatever it trains."""
    set_somewhere = set()
    for path in FILES:
        set_somewhere |= set(re.findall(r"(\w+)=", path.read_text()))
    general = {"seed", "keep", "revisits", "weight", "latents", "log_every"}  # the last three: of term regression
    kinds = [runs.config_class(name) for name in runs.NAMES] + [TrajectoryConfig]
    fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert fields - set_somewhere - general == set()
