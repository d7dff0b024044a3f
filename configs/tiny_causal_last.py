"""The tiny model's student, its last stretch: memory again, on clips of 10 s of which two fifths train the opening.

Data:     that of configs/tiny_causal_long.py, and runs/tiny_causal_opening
Command:  python -m launch.train --config=configs/tiny_causal_last.py --workdir=runs/tiny_causal_last
Hardware: any CPU with 2 cores.
Result:   python -m launch.export bundle ... (its docstring), then python -m launch.evaluate world, both with
          --config.dit.yarn_scale=1 --config.vae.extra_res_blocks="()": only later stages stretch RoPE and deepen the
          VAE; see relic_jax/assets/tiny/README.md for what it reached.
"""

import ml_collections

from configs import tiny_causal_long


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_causal_long.get_config()
    cfg.update(init_from="runs/tiny_causal_opening", steps=600, warmup=30, learning_rate=3e-3, sample_every=200)
    cfg.causal.opening = 0.4
    return cfg
