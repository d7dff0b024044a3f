"""The tiny model's student with a memory of 11 s: half of each rollout lies beyond the horizon, as long walks do.

Data:     that of configs/tiny_teacher_20s.py, runs/tiny_teacher_long and runs/tiny_distill_steady
Command:  python -m launch.train --config=configs/tiny_distill_beyond.py --workdir=runs/tiny_distill_beyond
Hardware: any CPU with 2 cores: half a minute a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_beyond/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_steady


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_steady.get_config()
    cfg.update(init_from="runs/tiny_distill_steady", steps=25, sample_every=25)
    cfg.model.memory.horizon = 44
    cfg.distill.regression = 16.0
    return cfg
