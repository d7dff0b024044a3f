"""A bundle of a very small model with random weights."""

import dataclasses

import jax
import pytest

from relic_jax.config import DiTConfig, MemoryConfig, RelicConfig, StreamConfig, VAEConfig
from relic_jax.models import bundle, tokenizer
from relic_jax.models.module import init


@pytest.fixture(scope="session")
def model():
    tiny = RelicConfig.tiny()
    cfg = dataclasses.replace(
        tiny,
        dit=DiTConfig(dim=48, ffn_dim=64, heads=2, layers=2, text_len=32, text_dim=64, cond_dim=8, freq_dim=16),
        vae=dataclasses.replace(VAEConfig.tiny(), base_dim=4, res_blocks=1),
        memory=MemoryConfig(window=4, horizon=10, schedule=(1, 4, 2)),
        stream=StreamConfig(block=2, timesteps=(1000.0, 625.0)),
    )
    keys = jax.random.split(jax.random.key(0), 3)
    configs = {"dit": cfg.dit, "vae": cfg.vae, "text": cfg.text}
    params = {
        part: init(module, configs[part], key) for (part, module), key in zip(bundle.PARTS.items(), keys, strict=True)
    }
    words = tokenizer.train(["a room with a red floor", "a hall with blue walls under a grey sky"] * 4, cfg.text.vocab)
    return bundle.Bundle(cfg, params, words)
