"""The tiny model's VAE, continued on longer clips.

Its causal convolutions see some 16 latents back. Trained on 9 frames (3 latents) alone, what is beyond has never been
seen: pictures fall apart from frame 10 on (28 dB before, 8 dB after). A short run on 41 frames puts that right.

Data:     that of configs/tiny_vae.py, and runs/tiny_vae
Command:  python -m launch.train --config=configs/tiny_vae_long.py --workdir=runs/tiny_vae_long
Hardware: any CPU with 2 cores.
Result:   val_psnr_db (over 81 frames) in runs/tiny_vae_long/metrics.jsonl; see relic_jax/assets/tiny/README.md.
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
            init_from="runs/tiny_vae",
            steps=1200,
            batch=1,
            frames=41,
            optimizer="muon",
            learning_rate=1e-3,
            warmup=20,
            weight_decay=0.0,
            ema=0.99,
            sample_every=300,
            save_every=300,
            vae=VAEOptions(),
        )
    )
