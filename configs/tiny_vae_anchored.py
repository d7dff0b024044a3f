"""The tiny model's VAE, both halves, its latents held where they are: what was trained on them need not learn anew.

Data:     that of configs/tiny_vae_last.py, and runs/tiny_vae_decoder
Command:  python -m launch.train --config=configs/tiny_vae_anchored.py --workdir=runs/tiny_vae_anchored
Hardware: any CPU with 2 cores.
Result:   val_psnr_db (over 81 frames) and `moved` in runs/tiny_vae_anchored/metrics.jsonl; see
          relic_jax/assets/tiny/README.md.
"""

import ml_collections

from configs import tiny_vae_decoder


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_decoder.get_config()
    cfg.update(init_from="runs/tiny_vae_decoder", steps=7000, learning_rate=1.5e-3, ema=0.998)
    cfg.vae.update(l1=0.0, decoder_only=False, anchor=0.05)
    return cfg
