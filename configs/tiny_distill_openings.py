"""The tiny model's student: many openings beside each few walks, steadiness where a session shows its pictures.

A batch of four walks of 40 s shows four openings, and all else in it is about later. Two dozen openings of 2 s more,
regressed to alone, cost a quarter of a step. Regression of the walks ends with their openings, so that nothing asks the
later seconds for means; and steadiness leaves out rollouts that leave off at the first evaluations, whose pictures are
means by nature: detail asked of them is noise for the evaluations that follow.

Data:     that of configs/tiny_distill_spectrum.py and configs/tiny_teacher_5s.py, and runs/tiny_distill_spectrum
Command:  python -m launch.train --config=configs/tiny_distill_openings.py --workdir=runs/tiny_distill_openings
Hardware: any CPU with 2 cores: 40 seconds a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_openings/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_spectrum


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_spectrum.get_config()
    cfg.update(init_from="runs/tiny_distill_spectrum", steps=30, learning_rate=1e-4)
    cfg.distill.update(openings=20.0, openings_data="data/train_latents_last", openings_batch=24, openings_latents=8)
    cfg.distill.update(regression_latents=9, regression_revisits=0)
    cfg.distill.update(steadiness=50.0, steadiness_from=2)
    return cfg
