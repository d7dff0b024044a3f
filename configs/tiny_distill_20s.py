"""The tiny model's student, distilled on its own video of 20 s, judged by the teacher of 20 s.

Data:     that of configs/tiny_teacher_20s.py, runs/tiny_teacher_20s and runs/tiny_distill_10s
Command:  python -m launch.train --config=configs/tiny_distill_20s.py --workdir=runs/tiny_distill_20s
Hardware: any CPU with 2 cores.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_20s/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_10s


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_10s.get_config()
    cfg.update(data="data/train_latents_20s", data_val="data/val_latents_20s", frames=317)
    cfg.update(steps=60, batch=2, sample_every=30)
    cfg.init_from = "runs/tiny_distill_10s"
    cfg.distill.update(teacher="runs/tiny_teacher_20s", micro_batch=2)
    cfg.distill.regression = 2.0  # the first 2 s are only a tenth of the gradient
    cfg.distill.teacher_dit = None  # the student's own size
    return cfg
