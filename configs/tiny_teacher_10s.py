"""The tiny model's teacher, continued on clips of 10 s: 40 latents, RoPE stretched to them by YaRN.

Data:     that of configs/tiny_teacher.py, and runs/tiny_teacher
Command:  python -m launch.train --config=configs/tiny_teacher_10s.py --workdir=runs/tiny_teacher_10s
Hardware: any CPU with 2 cores.
Result:   val_gain_db in runs/tiny_teacher_10s/metrics.jsonl. It stays: it judges the student's rollouts of 10 s.
"""

import dataclasses

import ml_collections

from relic_jax.config import PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.stage import TeacherOptions, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    model = dataclasses.replace(RelicConfig.tiny(), precision=PrecisionConfig("bfloat16", "float32"))
    return to_config_dict(
        TrainConfig(
            stage="teacher",
            model=model.stretched(40),
            data="data/train_latents",
            data_val="data/val_latents",
            init_from="runs/tiny_teacher",
            steps=200,
            batch=4,
            frames=157,
            balance_actions=True,
            optimizer="muon",
            warmup=20,
            learning_rate=1e-3,
            ema=0.99,
            sample_every=100,
            save_every=50,
            teacher=TeacherOptions(vae="runs/tiny_vae_fine", pose_drop=0.3),
        )
    )
