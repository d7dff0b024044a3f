"""The tiny model's student on walks that begin anywhere: 10 s into their paths, which begin where there is much to see.

Data:     runs/tiny_distill_settled, and clips with a lead:
          python -m launch.prepare_data world --clips=128 --frames=637 --lead=160 --seed=5 --out=data/train_walks
          and with --clips=8 --seed=803 --split=val --out=data/val_walks to validate;
          both encoded as README says under "Train the shipped model"
Command:  python -m launch.train --config=configs/tiny_distill_lead.py --workdir=runs/tiny_distill_lead
Hardware: any CPU with 2 cores: half a minute a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_lead/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_settled


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_settled.get_config()
    cfg.update(data="data/train_latents_walks", data_val="data/val_latents_walks")
    cfg.update(init_from="runs/tiny_distill_settled", steps=20, learning_rate=1.5e-4)
    cfg.distill.update(steadiness_by_size=0.5)
    return cfg
