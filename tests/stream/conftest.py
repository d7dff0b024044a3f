"""A bundle of a very small model with random weights."""

import dataclasses

import pytest

from relic_jax.config import DiTConfig, MemoryConfig, RelicConfig, StreamConfig, VAEConfig
from tests.small import random_bundle


@pytest.fixture(scope="session")
def model():
    cfg = dataclasses.replace(
        RelicConfig.tiny(),
        dit=DiTConfig(dim=48, ffn_dim=64, heads=2, layers=2, text_len=32, text_dim=64, cond_dim=8, freq_dim=16),
        vae=dataclasses.replace(VAEConfig.tiny(), base_dim=4, res_blocks=1),
        memory=MemoryConfig(window=4, horizon=10, schedule=(1, 4, 2)),
        stream=StreamConfig(block=2, timesteps=(1000.0, 625.0)),
    )
    return random_bundle(cfg)
