"""The tiny model's student, steady in each wave of its pictures instead of in their amount of detail.

The amount can be had for nothing: checks of a token's size, which its output layer makes at no cost
(`relic_jax.train.steadiness.spectrum_gradient`). The walks begin 10 s into their paths, which begin where there is much
to see: what a later second shows is no less than what the first ones do.

Data:     runs/tiny_distill_settled, and clips with a lead:
          python -m launch.prepare_data world --clips=128 --frames=637 --lead=160 --seed=5 --out=data/train_walks
          and with --clips=8 --seed=803 --split=val --out=data/val_walks to validate;
          both encoded as README says under "Train the shipped model"
Command:  python -m launch.train --config=configs/tiny_distill_spectrum.py --workdir=runs/tiny_distill_spectrum
Hardware: any CPU with 2 cores: half a minute a step.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_spectrum/metrics.jsonl.
"""

import ml_collections

from configs import tiny_distill_settled


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_distill_settled.get_config()
    cfg.update(data="data/train_latents_walks", data_val="data/val_latents_walks")
    cfg.update(init_from="runs/tiny_distill_settled", steps=30, learning_rate=2e-4)
    cfg.distill.update(steadiness=16.0, steadiness_spectrum=True, steadiness_by_size=0.5, regression=60.0)
    return cfg
