"""The tiny model's VAE, its last stretch: longer clips again, and the squared error, PSNR's own, weighs more.

Data:     that of configs/tiny_vae.py, and runs/tiny_vae_long
Command:  python -m launch.train --config=configs/tiny_vae_fine.py --workdir=runs/tiny_vae_fine
Hardware: any CPU with 2 cores.
Result:   val_psnr_db (over 81 frames) in runs/tiny_vae_fine/metrics.jsonl; see relic_jax/assets/tiny/README.md.
"""

import ml_collections

from relic_jax.config import RelicConfig, to_config_dict
from relic_jax.train.stage import TrainConfig, VAEOptions


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(
        TrainConfig(
            stage="vae",
            model=RelicConfig.tiny(),
            data="data/train",
            data_val="data/val",
            init_from="runs/tiny_vae_long",
            steps=2400,
            batch=1,
            frames=41,
            optimizer="muon",
            learning_rate=1.5e-3,
            warmup=20,
            weight_decay=0.0,
            ema=0.99,
            sample_every=400,
            save_every=400,
            vae=VAEOptions(mse=10.0),
        )
    )
