"""The tiny model's VAE, its last stretch: longer clips again, and the squared error, PSNR's own, weighs more.

Data:     that of configs/tiny_vae.py, and runs/tiny_vae_long
Command:  python -m launch.train --config=configs/tiny_vae_fine.py --workdir=runs/tiny_vae_fine
Hardware: any CPU with 2 cores.
Result:   val_psnr_db (over 81 frames) in runs/tiny_vae_fine/metrics.jsonl; see relic_jax/assets/tiny/README.md.
"""

import ml_collections

from configs import tiny_vae_long


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_long.get_config()
    cfg.update(init_from="runs/tiny_vae_long", steps=2400, learning_rate=1.5e-3, sample_every=400, save_every=400)
    cfg.vae.mse = 10.0
    return cfg
