"""The tiny model's student, distilled on its own video: first 5 s, judged by the teacher of 5 s.

Data:     that of configs/tiny_teacher_5s.py, runs/tiny_teacher_5s and runs/tiny_ode
Command:  python -m launch.train --config=configs/tiny_distill_5s.py --workdir=runs/tiny_distill_5s
Hardware: any CPU with 2 cores.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_5s/metrics.jsonl.
"""

import dataclasses

import ml_collections

from relic_jax.config import PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.stage import DistillOptions, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    model = dataclasses.replace(RelicConfig.tiny(), precision=PrecisionConfig("bfloat16", "float32")).stretched(80)
    return to_config_dict(
        TrainConfig(
            stage="distill",
            model=model,
            data="data/train_latents_last",
            data_val="data/val_latents_last",
            init_from="runs/tiny_ode",
            steps=150,
            batch=8,
            frames=77,
            balance_actions=True,
            learning_rate=2e-4,
            warmup=0,
            schedule="constant",
            betas=(0.0, 0.999),
            clip=10.0,
            ema=0.9,  # of 30 updates, not of thousands
            log_every=10,
            sample_every=50,
            save_every=25,
            distill=DistillOptions(
                vae="runs/tiny_vae_last",
                teacher="runs/tiny_teacher_5s",
                teacher_dit=RelicConfig.tiny().dit,
                critic_learning_rate=3e-4,
                guidance=1.0,  # as in configs/tiny_ode_data.py
                micro_batch=8,
                regression=1.0,
                regression_latents=9,  # 2 s: what the picture still determines
                ema_start=50,
            ),
        )
    )
