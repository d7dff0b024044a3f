"""The tiny model's student, its last stretch on walks of 20 s: memory of 20 s again, regression weighs most.

Data:     that of configs/tiny_teacher_20s.py, runs/tiny_teacher_long and runs/tiny_distill_beyond
Command:  python -m launch.train --config=configs/tiny_distill_final.py --workdir=runs/tiny_distill_final
Hardware: any CPU with 2 cores: half a minute a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_final/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_steady


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_steady.get_config()
    cfg.update(init_from="runs/tiny_distill_beyond", steps=20)
    cfg.distill.regression = 40.0
    return cfg
