"""The tiny model's VAE, its last stretch: configs/tiny_vae_deep.py once more, four windows a step. It is what ships.

Data:     runs/tiny_vae_deep, and more rooms:
          python -m launch.prepare_data world --clips=4800 --frames=33 --seed=3 --out=data/train_openings_long
Command:  python -m launch.train --config=configs/tiny_vae_deep_long.py --workdir=runs/tiny_vae_deep_long
Hardware: one GPU: 42 steps a second on an H200.
Result:   val_psnr_db (over 81 frames) and `moved` in runs/tiny_vae_deep_long/metrics.jsonl; see
          relic_jax/assets/tiny/README.md.
"""

import ml_collections

from configs import tiny_vae_deep


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_vae_deep.get_config()
    cfg.update(data="data/train_openings_long", init_from="runs/tiny_vae_deep", batch=4, steps=4000)
    cfg.update(learning_rate=1.5e-3, ema=0.998, log_every=50, sample_every=1000, save_every=500)
    return cfg
