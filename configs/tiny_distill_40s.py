"""The tiny model's student, distilled on its own video of 40 s: half of each walk lies beyond its memory of 20 s.

The teacher of 20 s judges a stretch of each rollout, steadiness all of it: what a scene's colours are must outlast the
frames that showed them. Steadiness counts axes by what they carry, because the paling of long walks is that of one
large axis, warm to cold. Regression leaves out what a clip first shows after 5 s: the student has shown something else
there and shall keep to that; asked for the clip's, it learns their mean, which is grey.

Data:     runs/tiny_teacher_long, runs/tiny_distill_final, and longer clips:
          python -m launch.prepare_data world --clips=128 --frames=637 --seed=4 --out=data/train_40s
          python -m launch.prepare_data world --clips=8 --frames=637 --seed=802 --split=val --out=data/val_40s
          both encoded as README says under "Train the shipped model"
Command:  python -m launch.train --config=configs/tiny_distill_40s.py --workdir=runs/tiny_distill_40s
Hardware: any CPU with 2 cores: 23 seconds a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_40s/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_final


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_final.get_config()
    cfg.update(data="data/train_latents_40s", data_val="data/val_latents_40s", frames=637)
    cfg.update(init_from="runs/tiny_distill_final", steps=40, sample_every=40)
    cfg.distill.update(judged_latents=80, regression_revisits=20, steadiness=8.0, steadiness_by_size=1.0)
    return cfg
