"""The tiny model's student, the last of three stages: block-causal, compressed memory, flow matching on clips of 10 s.

Data:     that of configs/tiny_teacher.py, and runs/tiny_teacher
Command:  python -m launch.train --config=configs/tiny_causal.py --workdir=runs/tiny_causal
Hardware: any CPU with 2 cores.
Result:   python -m launch.export bundle ... (its docstring), then python -m launch.evaluate world, both with
          --config.dit.yarn_scale=1 --config.vae.extra_res_blocks="()": only later stages stretch RoPE and deepen the
          VAE; see relic_jax/assets/tiny/README.md for what it reached.
"""

import dataclasses

import ml_collections

from relic_jax.config import PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.stage import CausalOptions, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(
        TrainConfig(
            stage="causal",
            model=dataclasses.replace(RelicConfig.tiny(), precision=PrecisionConfig("bfloat16", "float32")),
            data="data/train_latents",
            data_val="data/val_latents",
            init_from="runs/tiny_teacher",
            steps=3600,
            batch=8,
            frames=157,
            optimizer="muon",
            learning_rate=5e-3,
            ema=0.99,
            sample_every=400,
            save_every=200,
            causal=CausalOptions(vae="runs/tiny_vae_fine", pose_drop=0.3),
        )
    )
