"""The tiny model's VAE that ships: its decoder alone once more, in bfloat16.

Data:     that of configs/tiny_vae.py, and runs/tiny_vae_decoder
Command:  python -m launch.train --config=configs/tiny_vae_final.py --workdir=runs/tiny_vae_final
Hardware: any CPU with 2 cores; one with bfloat16 products takes two thirds of the time.
Result:   val_psnr_db (over 81 frames) in runs/tiny_vae_final/metrics.jsonl; see relic_jax/assets/tiny/README.md.
"""

import ml_collections

from configs import tiny_vae_decoder


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_decoder.get_config()
    cfg.update(data="data/train", init_from="runs/tiny_vae_decoder", steps=9000, ema=0.998)
    cfg.vae.update(l1=0.0)
    cfg.model.precision.compute = "bfloat16"
    return cfg
