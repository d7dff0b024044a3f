import dataclasses
import importlib.util
from pathlib import Path

import pytest

from relic_jax.config import ConfigError, RelicConfig, from_config_dict
from relic_jax.train.stage import TeacherOptions, TrainConfig, VAEOptions
from tests.train.toy import config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"frames": 0}, "config.frames=0 must be at least 1"),
        ({"learning_rate": 0.0}, "config.learning_rate=0.0 must be above 0"),
        ({"ema": 1.0}, r"config.ema=1.0 must lie in \[0, 1\)"),
        ({"warmup": 41}, "config.warmup=41 must lie between 0 and config.steps=40"),
        ({"balance_actions": True}, "config.balance_actions=True: stage vae is shown no actions"),
        (
            {"vae": VAEOptions(anchor=1.0)},
            "config.vae.anchor=1.0 needs config.init_from: there is nothing to hold on to",
        ),
        ({"vae": None}, "config.stage=vae needs options config.vae and no other stage's"),
        ({"teacher": TeacherOptions()}, "config.stage=vae needs options config.vae and no other stage's"),
    ],
)
def test_bad_fields_are_named(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config(**fields)


@pytest.mark.parametrize("name", ["tiny_vae", "tiny_teacher", "tiny_causal"])
def test_config_files_describe_runs(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cfg = from_config_dict(TrainConfig, module.get_config())
    tiny = RelicConfig.tiny()
    assert f"tiny_{cfg.stage}" == name and dataclasses.replace(cfg.model, precision=tiny.precision) == tiny
    assert from_config_dict(TrainConfig, dataclasses.asdict(cfg)) == cfg
