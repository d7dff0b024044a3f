"""The tiny model's student, its last stretch: the later spans of a walk keep what the first has, whatever clips do.

Clips begin where there is much to see, so that real ones lose a tenth of their sharpness in 10 s. A student that is
held to that grows softer the later it is, everywhere.

Data:     that of configs/tiny_distill_40s.py, and runs/tiny_distill_walks
Command:  python -m launch.train --config=configs/tiny_distill_level.py --workdir=runs/tiny_distill_level
Hardware: any CPU with 2 cores: 22 seconds a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_level/metrics.jsonl; the model card says what it
          reached. It is what ships.
"""

import ml_collections

from configs import tiny_distill_walks


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_walks.get_config()
    cfg.update(init_from="runs/tiny_distill_walks", steps=20)
    cfg.distill.update(steadiness=24.0, steadiness_by_size=0.3, steadiness_level=True)
    return cfg
