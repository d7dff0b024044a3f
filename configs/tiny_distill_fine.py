"""The tiny model's student, the last stretch: half the learning rate, on the walks from their paths' beginnings.

Pictures that people start from are rather those where there is much to see.

Data:     that of configs/tiny_distill_40s.py, and runs/tiny_distill_spectrum
Command:  python -m launch.train --config=configs/tiny_distill_fine.py --workdir=runs/tiny_distill_fine
Hardware: any CPU with 2 cores: half a minute a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_fine/metrics.jsonl; the model card says what it
          reached. It is what ships.
"""

import ml_collections

from configs import tiny_distill_spectrum


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_spectrum.get_config()
    cfg.update(data="data/train_latents_40s", data_val="data/val_latents_40s")
    cfg.update(init_from="runs/tiny_distill_spectrum", steps=10, learning_rate=1e-4)
    cfg.distill.update(steadiness=20.0)
    return cfg
