"""The tiny model's VAE, its last stretch: as configs/tiny_vae_fine.py, once more and longer.

Data:     runs/tiny_vae_fine, the held-out clips of configs/tiny_vae.py, and more rooms:
          python -m launch.prepare_data world --clips=4800 --frames=157 --out=data/train_large
Command:  python -m launch.train --config=configs/tiny_vae_last.py --workdir=runs/tiny_vae_last
Hardware: any CPU with 2 cores.
Result:   val_psnr_db (over 81 frames) in runs/tiny_vae_last/metrics.jsonl; see relic_jax/assets/tiny/README.md.
"""

import ml_collections

from configs import tiny_vae_fine


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_fine.get_config()
    cfg.update(data="data/train_large", init_from="runs/tiny_vae_fine", steps=3000, learning_rate=1.2e-3)
    return cfg
