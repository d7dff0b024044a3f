"""The tiny model's student, steady on average: what it loses is seen over the last rollouts, not in each batch.

Four walks come to see more or less by chance, which is several times what a stream loses in a minute; the gradients of
two batches agreed about nothing (`relic_jax.train.steadiness.Watch`).

Data:     that of configs/tiny_distill_openings.py, and runs/tiny_distill_openings
Command:  python -m launch.train --config=configs/tiny_distill_means.py --workdir=runs/tiny_distill_means
Hardware: any CPU with 2 cores: 40 seconds a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_means/metrics.jsonl; the model card says what it
          reached. It is what ships.
"""

import ml_collections

from configs import tiny_distill_openings


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_openings.get_config()
    cfg.update(init_from="runs/tiny_distill_openings", steps=30)
    cfg.distill.update(steadiness=60.0, steadiness_spectrum=False, steadiness_bands=4)
    return cfg
