"""The tiny model's student, the last of three stages: block-causal, compressed memory, flow matching on clips.

Data:     runs/tiny_vae, runs/tiny_teacher and the clips of configs/tiny_vae.py
Command:  python -m launch.train --config=configs/tiny_causal.py --workdir=runs/tiny_causal
Hardware: any CPU with 2 cores.
Result:   loss and samples in runs/tiny_causal.
"""

import ml_collections

from relic_jax.config import RelicConfig, to_config_dict
from relic_jax.train.stage import CausalOptions, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(
        TrainConfig(
            stage="causal",
            model=RelicConfig.tiny(),
            data="data/world/train",
            data_val="data/world/val",
            init_from="runs/tiny_teacher",
            steps=4000,
            batch=4,
            frames=125,
            learning_rate=1.5e-3,
            ema=0.99,
            causal=CausalOptions(vae="runs/tiny_vae"),
        )
    )
