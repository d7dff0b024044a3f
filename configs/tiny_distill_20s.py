"""The tiny model's student, distilled on its own video of 20 s, judged by the teacher of 20 s: what ships.

Data:     that of configs/tiny_teacher_20s.py, runs/tiny_teacher_20s and runs/tiny_distill_10s
Command:  python -m launch.train --config=configs/tiny_distill_20s.py --workdir=runs/tiny_distill_20s
Hardware: any CPU with 2 cores.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_20s/metrics.jsonl; the model card
          says what it reached.
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
            data="data/train_latents_20s",
            data_val="data/val_latents_20s",
            init_from="runs/tiny_distill_10s",
            steps=150,
            batch=16,
            frames=317,
            balance_actions=True,
            learning_rate=5e-5,
            warmup=0,
            schedule="constant",
            betas=(0.0, 0.999),
            clip=10.0,
            ema=0.99,
            log_every=10,
            sample_every=50,
            save_every=25,
            distill=DistillOptions(
                vae="runs/tiny_vae_fine",
                teacher="runs/tiny_teacher_20s",
                critic_learning_rate=5e-5,
                micro_batch=2,
                ema_start=0,
            ),
        )
    )
