"""The tiny model's student, distilled on its own video of 10 s, judged by the teacher of 10 s.

Data:     that of configs/tiny_teacher_5s.py, runs/tiny_teacher_10s and runs/tiny_distill_5s
Command:  python -m launch.train --config=configs/tiny_distill_10s.py --workdir=runs/tiny_distill_10s
Hardware: any CPU with 2 cores.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_10s/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_5s
from relic_jax.config import RelicConfig, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_5s.get_config()
    cfg.update(init_from="runs/tiny_distill_5s", steps=80, batch=4, frames=157, sample_every=40, save_every=20)
    cfg.distill.update(teacher="runs/tiny_teacher_10s", micro_batch=4, ema_start=0)
    cfg.distill.teacher_dit = to_config_dict(RelicConfig.tiny().stretched(40).dit)
    return cfg
