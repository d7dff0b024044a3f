"""The tiny model's VAE, its decoder alone: the latents that the transformer was trained on stay as they are.

Data:     that of configs/tiny_vae_last.py, and runs/tiny_vae_last
Command:  python -m launch.train --config=configs/tiny_vae_decoder.py --workdir=runs/tiny_vae_decoder
Hardware: any CPU with 2 cores.
Result:   val_psnr_db (over 81 frames) in runs/tiny_vae_decoder/metrics.jsonl; see relic_jax/assets/tiny/README.md.
"""

import ml_collections

from configs import tiny_vae_last


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_last.get_config()
    cfg.update(init_from="runs/tiny_vae_last", steps=4500, learning_rate=1.5e-3, sample_every=500, save_every=500)
    cfg.vae.update(mse=0.0, log_mse=0.3, decoder_only=True)
    return cfg
