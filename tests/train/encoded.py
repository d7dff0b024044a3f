"""Encoded clips and a VAE that fit a very small model, made of random numbers: nothing needs to be rendered."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from relic_jax.camera.actions import static_actions
from relic_jax.config import (
    DiTConfig,
    MemoryConfig,
    RelicConfig,
    StreamConfig,
    TextConfig,
    VAEConfig,
    VideoConfig,
)
from relic_jax.data import latents, shards
from relic_jax.models import module, vae, weights
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT
from relic_jax.train import checkpoint, loop, run
from tests.small import frames_of

DIT = DiTConfig(
    dim=24, ffn_dim=32, heads=2, layers=2, latent_channels=4, text_len=4, text_dim=8, cond_dim=8, freq_dim=16
)


def model(mode="relic", compress="latent", block=2, dit=DIT) -> RelicConfig:
    """Latents of 4 x 6 cells, 2 x 3 tokens; memory begins with the third block and is full after five."""
    return dataclasses.replace(
        RelicConfig.tiny(),
        video=VideoConfig(height=32, width=48),
        dit=dit,
        vae=VAEConfig(
            latent_channels=4, base_dim=4, multipliers=(1, 1, 1), res_blocks=1, temporal_down=(True, True), patch_size=2
        ),
        text=dataclasses.replace(TextConfig.tiny(), dim=8, length=4),
        memory=MemoryConfig(mode=mode, compress=compress, window=2 * block, horizon=5 * block, schedule=(1, 4, 2)),
        stream=StreamConfig(block=block),
    )


def random_params(kind, cfg, scale=0.2, seed=0) -> module.Params:
    """Weights filled on the host: compiling initialisers takes longer."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(scale=scale, size=leaf.shape), leaf.dtype), module.abstract(kind, cfg)
    )


def conditions(batch: int, latents: int) -> Conditions:
    """Of nothing in particular."""
    return Conditions.of(jnp.zeros((batch, 4, 8)), jnp.zeros((batch, latents, 52)), jnp.zeros((batch, latents, 48)))


def write(folder: Path, cfg: RelicConfig, length: int, clips: int = 4) -> None:
    """folder/clips: encoded clips of so many latents; folder/vae.safetensors; folder/student.safetensors."""
    rng = np.random.default_rng(0)
    frames = frames_of(length)

    def record(seed: int) -> dict:
        positions = np.cumsum(rng.normal(scale=0.1, size=(frames, 3)), axis=0)
        return {
            "latents": rng.normal(size=(length, *cfg.latent_size, cfg.vae.latent_channels)).astype(np.float16),
            "rotations": np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1)),
            "positions": (positions - positions[0]).astype(np.float32),
            "actions": static_actions(frames),
            "unit": np.float32(0.1),
            "text": rng.normal(size=(cfg.text.length, cfg.text.dim)).astype(np.float16),
            "seed": seed,
        }

    split = shards.Split(folder / "clips", "train", clips)
    split.directory.mkdir()
    shards.claim(split, {"made": "of random numbers"})
    for index, numbers in enumerate(split.shards):
        split.write(index, latents.features(cfg), (record(number) for number in numbers))
    shards.finish(split.directory, latents.features(cfg), "test")
    weights.save_safetensors(str(folder / "vae.safetensors"), random_params(vae.VAE, cfg.vae))
    weights.save_safetensors(str(folder / "student.safetensors"), random_params(DiT, cfg.dit))


def trains(cfg, folder: Path) -> Path:
    """Trains `cfg`. Returns the run's folder."""
    straight = folder / "straight"
    straight.mkdir()
    loop.train(run.make(cfg), straight)
    return straight


def resumes_exactly(cfg, folder: Path) -> Path:
    """Trains `cfg`, then goes on from its middle checkpoint: equal to the bit. Returns the first run's folder."""
    straight, resumed = trains(cfg, folder), folder / "resumed"
    shutil.copytree(straight, resumed)
    shutil.rmtree(resumed / "checkpoints" / str(cfg.steps))
    loop.train(run.make(cfg), resumed)
    assert (straight / "metrics.jsonl").read_bytes() == (resumed / "metrics.jsonl").read_bytes()
    for kind in ("params", "ema"):
        both = [checkpoint.read(str(workdir), kind) for workdir in (straight, resumed)]
        jax.tree.map(np.testing.assert_array_equal, both[0][1], both[1][1])
    return straight
