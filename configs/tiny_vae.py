"""The tiny model's VAE, the first of three stages: Wan's architecture on folded pixels, L1 + MSE + KL.

Data:     python -m launch.prepare_data world --clips=1200 --out=data/world/train
          python -m launch.prepare_data world --clips=64 --seed=1 --split=val --out=data/world/val
Command:  python -m launch.train --config=configs/tiny_vae.py --workdir=runs/tiny_vae
Hardware: any CPU with 2 cores.
Result:   val_psnr_db >= 28 in runs/tiny_vae/metrics.jsonl.
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
            data="data/world/train",
            data_val="data/world/val",
            steps=4500,
            batch=2,
            frames=13,
            learning_rate=1e-3,
            weight_decay=0.0,
            sample_every=250,
            save_every=250,
            vae=VAEOptions(),
        )
    )
