"""The tiny model's teacher for distillation, the first of three lengths: bidirectional flow matching on clips of 5 s.

Data:     that of configs/tiny_causal_long.py, and runs/tiny_teacher_words
Command:  python -m launch.train --config=configs/tiny_teacher_5s.py --workdir=runs/tiny_teacher_5s
Hardware: any CPU with 2 cores.
Result:   val_gain_db in runs/tiny_teacher_5s/metrics.jsonl. It stays: it judges the student's rollouts of 5 s.
"""

import ml_collections

from configs import tiny_teacher_again


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_teacher_again.get_config()
    cfg.init_from = "runs/tiny_teacher_words"
    cfg.teacher.picture_drop = 0.1  # of what it has read some stays; without pictures hidden, nothing
    return cfg
