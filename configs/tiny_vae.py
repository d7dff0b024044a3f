"""The tiny model's VAE, the first of three stages: Wan's architecture on folded pixels, L1 + MSE + KL.

Data:     python -m launch.prepare_data world --clips=1600 --frames=157 --out=data/train
          python -m launch.prepare_data world --clips=64 --frames=157 --seed=800 --split=val --out=data/val
Command:  python -m launch.train --config=configs/tiny_vae.py --workdir=runs/tiny_vae
Hardware: any CPU with 2 cores.
Result:   val_psnr_db in runs/tiny_vae/metrics.jsonl; see relic_jax/assets/tiny/README.md for what it reached.
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
            steps=5000,
            batch=2,
            frames=9,
            optimizer="muon",
            learning_rate=2e-3,
            weight_decay=0.0,
            ema=0.99,
            sample_every=500,
            save_every=500,
            vae=VAEOptions(),
        )
    )
