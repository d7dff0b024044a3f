"""The tiny model's teacher for distillation, the first of three lengths: clips of 5 s, and the sentence comes in.

The models before it had shut their eyes to text: every query of cross-attention looked at the padding after the
sentence, to seven digits. Here that part starts anew.

Data:     that of configs/tiny_causal_long.py, and runs/tiny_teacher_again
Command:  python -m launch.train --config=configs/tiny_teacher_5s.py --workdir=runs/tiny_teacher_5s
Hardware: any CPU with 2 cores.
Result:   val_gain_db in runs/tiny_teacher_5s/metrics.jsonl. It stays: it judges the student's rollouts of 5 s.
"""

import ml_collections

from configs import tiny_teacher_again


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_teacher_again.get_config()
    cfg.update(init_from="runs/tiny_teacher_again", fresh=("text_embedding", "blocks.cross_attention"))
    return cfg
