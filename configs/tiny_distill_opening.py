"""The tiny model's student: the first two seconds alone, judged by the teacher and by the clips.

A rollout of 20 s is a tenth opening, and the opening is what a picture determines. Rollouts of two blocks are cheap, so
the student learns at every step. configs/tiny_distill_last.py goes on.

Data:     that of configs/tiny_teacher_5s.py, runs/tiny_teacher_5s and runs/tiny_distill_20s
Command:  python -m launch.train --config=configs/tiny_distill_opening.py --workdir=runs/tiny_distill_opening
Hardware: any CPU with 2 cores.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_opening/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_5s


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_5s.get_config()
    cfg.update(init_from="runs/tiny_distill_20s", steps=70, batch=24, frames=29, sample_every=35)
    cfg.distill.update(micro_batch=24, generator_every=1, regression=3.0, ema_start=0)
    return cfg
