"""The tiny model's student, steady in each wave of its pictures instead of in their amount of detail.

The amount can be had for nothing: checks of a token's size, which its output layer makes at no cost. Of the wave
that they are the student before had nine times what real clips have, of walls' and floors' a seventh
(`relic_jax.train.steadiness.spectrum_gradient`).

Data:     that of configs/tiny_distill_lead.py, and runs/tiny_distill_lead
Command:  python -m launch.train --config=configs/tiny_distill_spectrum.py --workdir=runs/tiny_distill_spectrum
Hardware: any CPU with 2 cores: half a minute a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_spectrum/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_lead


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_lead.get_config()
    cfg.update(init_from="runs/tiny_distill_lead", steps=20, learning_rate=2e-4)
    cfg.distill.update(steadiness=16.0, steadiness_spectrum=True, regression=60.0)
    return cfg
