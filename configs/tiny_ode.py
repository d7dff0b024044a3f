"""The tiny model's student, its start: the 20 s teacher's trajectories regressed at four timesteps, block-causal.

Data:     runs/tiny_ode_data, runs/tiny_causal_20s, and the held-out clips of configs/tiny_teacher_20s.py
Command:  python -m launch.train --config=configs/tiny_ode.py --workdir=runs/tiny_ode
Hardware: any CPU with 2 cores.
Result:   val_gain_db of four-step streaming in runs/tiny_ode/metrics.jsonl; distillation starts from here.
"""

import dataclasses

import ml_collections

from relic_jax.config import PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.stage import OdeOptions, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    model = dataclasses.replace(RelicConfig.tiny(), precision=PrecisionConfig("bfloat16", "float32"))
    return to_config_dict(
        TrainConfig(
            stage="ode",
            model=model.stretched(80),
            data="runs/tiny_ode_data",
            data_val="data/val_latents_20s",
            init_from="runs/tiny_causal_20s",
            steps=250,
            batch=4,
            frames=317,
            optimizer="muon",
            warmup=20,
            learning_rate=1e-3,
            ema=0.99,
            sample_every=125,
            save_every=50,
            ode=OdeOptions(vae="runs/tiny_vae_last", pose_drop=0.3),
        )
    )
