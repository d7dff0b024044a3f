"""The tiny model's student on walks of 40 s: steadiness weighs twice as much, and fine structures count again.

Data:     that of configs/tiny_distill_40s.py, and runs/tiny_distill_40s
Command:  python -m launch.train --config=configs/tiny_distill_walks.py --workdir=runs/tiny_distill_walks
Hardware: any CPU with 2 cores: 22 seconds a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_walks/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_40s


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_40s.get_config()
    cfg.update(init_from="runs/tiny_distill_40s", steps=60)
    cfg.distill.update(steadiness=16.0, steadiness_by_size=0.5)
    return cfg
