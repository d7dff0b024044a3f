"""The tiny model's VAE with one more residual block at each of its two finer levels, its latents held where they are.

The blocks start as the identity, so the first step is configs/tiny_vae_final.py's last. Training rooms are
reconstructed no better than others: what was missing was size.

Data:     runs/tiny_vae_final, and windows of many rooms:
          python -m launch.prepare_data world --clips=3000 --frames=33 --seed=2 --out=data/train_openings
          python -m launch.export grow --config=configs/tiny.py --vae=runs/tiny_vae_final \
              --out=data/vae_grown.safetensors
Command:  python -m launch.train --config=configs/tiny_vae_deep.py --workdir=runs/tiny_vae_deep
Hardware: any CPU; one core takes 2 s a step.
Result:   val_psnr_db (over 81 frames) and `moved` in runs/tiny_vae_deep/metrics.jsonl; see
          relic_jax/assets/tiny/README.md.
"""

import ml_collections

from configs import tiny, tiny_vae_final


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_final.get_config()
    cfg.model.vae = tiny.get_config().vae
    cfg.update(data="data/train_openings", init_from="data/vae_grown.safetensors", steps=3000)
    cfg.update(sample_every=300, save_every=150)
    cfg.vae.anchor = 0.05
    return cfg
