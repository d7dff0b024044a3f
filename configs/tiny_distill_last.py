"""The tiny model's student, its last stretch: 20 s once more, judged by the teacher of 20 s. It is what ships.

The stretch before it, on openings alone, makes the first two seconds exact, and walks of a minute pale: nothing in it
says how a stream goes on. This one is to bring the colours back; eight updates brought some.

Data:     that of configs/tiny_teacher_20s.py, runs/tiny_teacher_20s and runs/tiny_distill_opening
Command:  python -m launch.train --config=configs/tiny_distill_last.py --workdir=runs/tiny_distill_last
Hardware: any CPU with 2 cores.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_last/metrics.jsonl; the model card says what it
          reached.
"""

import ml_collections

from configs import tiny_distill_20s


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_20s.get_config()
    cfg.update(init_from="runs/tiny_distill_opening", steps=40, sample_every=20)
    return cfg
