"""The tiny model's student: steadiness weighs four times as much.

After 30 updates six walks of 40 s had lost 8 % of their first 5 s' sharpness on average, 21 % before them; but the gain
over the still picture fell from 3.20 to 2.87 dB, which the next two stages bring back.

Data:     that of configs/tiny_teacher_20s.py, runs/tiny_teacher_long and runs/tiny_distill_long
Command:  python -m launch.train --config=configs/tiny_distill_steady.py --workdir=runs/tiny_distill_steady
Hardware: any CPU with 2 cores: half a minute a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_steady/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_long


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_long.get_config()
    cfg.update(data="data/train_latents_20s", init_from="runs/tiny_distill_long", steps=40, batch=4, ema=0.9)
    cfg.update(log_every=1, sample_every=20, save_every=5)
    cfg.distill.update(micro_batch=4, steadiness=4.0)
    return cfg
