"""The tiny model's VAE, its decoder alone once more: the squared error in decibels is all it goes by now.

Data:     that of configs/tiny_vae_last.py, and runs/tiny_vae_decoder
Command:  python -m launch.train --config=configs/tiny_vae_decoder_long.py --workdir=runs/tiny_vae_decoder_long
Hardware: any CPU with 2 cores.
Result:   val_psnr_db (over 81 frames) in runs/tiny_vae_decoder_long/metrics.jsonl; see relic_jax/assets/tiny/README.md.
"""

import ml_collections

from configs import tiny_vae_decoder


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_decoder.get_config()
    cfg.update(init_from="runs/tiny_vae_decoder", steps=7000, learning_rate=2e-3, ema=0.998)
    cfg.vae.l1 = 0.0
    return cfg
