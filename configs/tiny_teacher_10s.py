"""The tiny model's teacher, continued on clips of 10 s: 40 latents, RoPE stretched to them by YaRN.

Data:     that of configs/tiny_teacher_5s.py, and runs/tiny_teacher_5s
Command:  python -m launch.train --config=configs/tiny_teacher_10s.py --workdir=runs/tiny_teacher_10s
Hardware: any CPU with 2 cores.
Result:   val_gain_db in runs/tiny_teacher_10s/metrics.jsonl. It stays: it judges the student's rollouts of 10 s.
"""

import ml_collections

from configs import tiny_teacher_5s
from relic_jax.config import RelicConfig, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_teacher_5s.get_config()
    cfg.update(init_from="runs/tiny_teacher_5s", steps=160, batch=4, frames=157, warmup=20, learning_rate=2e-3)
    cfg.update(sample_every=80, save_every=40)
    cfg.model.dit = to_config_dict(RelicConfig.tiny().stretched(40).dit)
    return cfg
