"""The run of `toy_host`."""

import ml_collections

from relic_jax.config import to_config_dict
from relic_jax.train.vae import VAERunConfig
from tests.train.toy import config


def run() -> VAERunConfig:
    fast = {"mesh": "data=2,fsdp=4", "steps": 20, "save_every": 4, "log_every": 1, "sample_every": 100}
    return config({"warmup": 2}, **fast)


def get_config() -> ml_collections.ConfigDict:
    return to_config_dict(run())
