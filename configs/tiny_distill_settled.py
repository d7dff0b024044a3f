"""The tiny model's student, its last stretch on walks of 40 s: a third of the learning rate, steadiness weighs more.

Data:     that of configs/tiny_distill_40s.py, and runs/tiny_distill_walks
Command:  python -m launch.train --config=configs/tiny_distill_settled.py --workdir=runs/tiny_distill_settled
Hardware: any CPU with 2 cores: half a minute a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_settled/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_walks


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_walks.get_config()
    cfg.update(init_from="runs/tiny_distill_walks", steps=20, learning_rate=7e-5)
    cfg.distill.update(steadiness=24.0, steadiness_by_size=0.3)
    return cfg
