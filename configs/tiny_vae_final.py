"""The tiny model's VAE that ships: configs/tiny_vae_anchored.py once more, held less still.

Data:     that of configs/tiny_vae_last.py, and runs/tiny_vae_anchored
Command:  python -m launch.train --config=configs/tiny_vae_final.py --workdir=runs/tiny_vae_final
Hardware: any CPU with 2 cores.
Result:   val_psnr_db (over 81 frames) and `moved` in runs/tiny_vae_final/metrics.jsonl; see
          relic_jax/assets/tiny/README.md.
"""

import ml_collections

from configs import tiny_vae_anchored


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_anchored.get_config()
    cfg.update(init_from="runs/tiny_vae_anchored", steps=4500, learning_rate=1.2e-3)
    cfg.vae.update(anchor=0.02)
    return cfg
