"""The tiny model's teacher, the second of three stages: bidirectional flow matching on clips of 5 s.

Data:     runs/tiny_vae_fine and the clips of configs/tiny_vae.py, encoded:
          python -m launch.prepare_data tokenizer --data=data/train --out=data/tokenizer.json
          python -m launch.prepare_data latents --data=data/train --out=data/train_latents \
              --checkpoint=runs/tiny_vae_fine --tokenizer=data/tokenizer.json
          python -m launch.prepare_data latents --data=data/val --out=data/val_latents \
              --checkpoint=runs/tiny_vae_fine --tokenizer=data/tokenizer.json \
              --text=data/train_latents/text.safetensors
Command:  python -m launch.train --config=configs/tiny_teacher.py --workdir=runs/tiny_teacher
Hardware: any CPU with 2 cores.
Result:   val_gain_db in runs/tiny_teacher/metrics.jsonl; see relic_jax/assets/tiny/README.md for what it reached.
"""

import dataclasses

import ml_collections

from relic_jax.config import PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.stage import TeacherOptions, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(
        TrainConfig(
            stage="teacher",
            model=dataclasses.replace(RelicConfig.tiny(), precision=PrecisionConfig("bfloat16", "float32")),
            data="data/train_latents",
            data_val="data/val_latents",
            steps=800,
            batch=8,
            frames=81,
            optimizer="muon",
            warmup=40,
            learning_rate=2e-3,
            ema=0.99,
            sample_every=400,
            save_every=400,
            teacher=TeacherOptions(vae="runs/tiny_vae_fine", pose_drop=0.3),
        )
    )
