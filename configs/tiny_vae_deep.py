"""The tiny model's VAE with one more residual block at each of its two finer levels, its latents held where they are.

Data:     runs/tiny_vae_final, and windows of many rooms, as long as what launch.evaluate world measures:
          python -m launch.prepare_data world --clips=4800 --frames=33 --seed=3 --out=data/train_openings
          python -m launch.export grow --config=configs/tiny.py --vae=runs/tiny_vae_final --out=data/vae_grown.safetensors
Command:  python -m launch.train --config=configs/tiny_vae_deep.py --workdir=runs/tiny_vae_deep
Hardware: one GPU; on a CPU core a step of one window takes 2 s.
Result:   val_psnr_db (over 81 frames) and `moved` in runs/tiny_vae_deep/metrics.jsonl; see
          relic_jax/assets/tiny/README.md.
"""

import dataclasses

import ml_collections

from configs import tiny_vae_decoder
from relic_jax.config import VAEConfig, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_decoder.get_config()
    cfg.model.vae = to_config_dict(dataclasses.replace(VAEConfig.tiny(), extra_res_blocks=(1, 1, 0)))
    cfg.update(data="data/train_openings", init_from="data/vae_grown.safetensors", frames=33, batch=4, steps=4000)
    cfg.update(learning_rate=1.5e-3, ema=0.998, log_every=50, sample_every=1000, save_every=500)
    cfg.vae.update(l1=0.0, decoder_only=False, anchor=0.05)
    return cfg
