"""What a run's configuration refuses, before anything is read."""

import dataclasses

import pytest

from relic_jax.config import ConfigError, RelicConfig
from relic_jax.errors import InputError
from relic_jax.train import run
from relic_jax.train.causal import CausalConfig
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.teacher import TeacherConfig
from tests.train.toy import config

CLIPS = {
    "model": RelicConfig.tiny(), "data": "", "data_val": "", "steps": 1, "batch": 1, "frames": 1,
    "optimizer": OptimizerConfig(learning_rate=1e-3),
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"frames": 0}, "config.frames=0 must be at least 1"),
        ({"steps": -3}, "config.steps=-3 must be at least 1"),
        ({"ema": 1.0}, r"config.ema=1.0 must lie in \[0, 1\)"),
        ({"ema": float("nan")}, "config.ema=nan must be a finite number of 64 bits"),
        ({"ema_start": -1}, "config.ema_start=-1 must be at least 0"),
        ({"optimizer": {"warmup": 41}}, "config.optimizer.warmup=41 must lie between 0 and config.steps=40"),
        ({"seed": 2**64}, "config.seed=18446744073709551616 must be a finite number of 64 bits"),
        ({"seed": -1}, "config.seed=-1 must be at least 0"),
        ({"steps": 10**400}, "config.steps=1000+ must be a finite number of 64 bits"),
        ({"optimizer": {"learning_rate": float("inf")}}, "optimizer.learning_rate=inf must be above 0"),
        ({"optimizer": {"weight_decay": float("nan")}}, "optimizer.weight_decay=nan must lie between 0 and 1"),
        ({"l1": -1.0}, "config.l1=-1.0 must be at least 0"),
        ({"kl": float("nan")}, "config.kl=nan must be a finite number of 64 bits"),
    ],
)
def test_bad_fields_are_named(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config(**fields)


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (TeacherConfig, {"pose_drop": 2.0}, "config.pose_drop=2.0 must lie between 0 and 1"),
        (TeacherConfig, {"text_drop": 7.0}, "config.text_drop=7.0 must lie between 0 and 1"),
        (TeacherConfig, {"picture_drop": -0.1}, "config.picture_drop=-0.1 must lie between 0 and 1"),
        (TeacherConfig, {"shift": 0.0}, "config.shift=0.0 must be above 0"),
        (CausalConfig, {"context_noise": 1.5}, "config.context_noise=1.5 must lie between 0 and 1"),
        (CausalConfig, {"text_drop": float("nan")}, "config.text_drop=nan must be a finite number of 64 bits"),
    ],
)
def test_bad_shares_are_named(kind, fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        kind(stage="teacher", **CLIPS, **fields)


def test_a_batch_that_the_mesh_cannot_divide():
    with pytest.raises(InputError, match="a batch of 8 can't be divided over data=1 x fsdp=3 devices"):
        config(mesh="fsdp=3")


def test_every_stage_has_its_configuration():
    for name in run.NAMES:
        kind = run.config_class(name)
        assert issubclass(kind, run.RunConfig) and dataclasses.is_dataclass(kind)
    with pytest.raises(ConfigError, match="config.stage='none' is not one of vae, teacher, causal, ode, distill"):
        run.config_class("none")
