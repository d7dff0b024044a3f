"""The tiny model's student, its start: the 20 s teacher's trajectories regressed at four timesteps, block-causal.

Data:     runs/tiny_ode_data, runs/tiny_causal, and the held-out clips of 20 s
Command:  python -m launch.train --config=configs/tiny_ode.py --workdir=runs/tiny_ode
Hardware: any CPU with 2 cores. Memory: not measured.

| starts from      | steps x batch of frames | time, 2 Xeon cores | result                   |
| ---------------- | ----------------------- | ------------------ | ------------------------ |
| runs/tiny_causal | 250 x 4 of 317          | 7 min              | this chain was never run |
"""

import dataclasses

import ml_collections

from relic_jax.config import PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.ode import OdeConfig
from relic_jax.train.optimizer import OptimizerConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.ode.OdeConfig`."""
    tiny = RelicConfig.tiny().stretched(80)
    return to_config_dict(
        OdeConfig(
            stage="ode",
            model=dataclasses.replace(tiny, precision=PrecisionConfig(compute="bfloat16", cache="float32")),
            vae="runs/tiny_vae_long",
            data="runs/tiny_ode_data",
            data_val="data/val_latents_20s",
            init_from="runs/tiny_causal",
            steps=250,
            batch=4,
            frames=317,
            optimizer=OptimizerConfig(kind="muon", learning_rate=1e-3, warmup=20, schedule="cosine"),
            ema=0.99,
            sample_every=125,
            save_every=50,
            pose_drop=0.3,
        )
    )
