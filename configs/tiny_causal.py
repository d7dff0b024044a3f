"""The tiny model's student begins: block-causal with compressed memory, flow matching under the hybrid-forcing mask.

A small student learns on clips to stream before it meets the teacher's trajectories; the paper's goes to these at once.

Data:     clips encoded by runs/tiny_vae_long, as `python -m launch.recipe recipes/tiny.py --dry-run` prints them
Command:  python -m launch.train --config=configs/tiny_causal.py --workdir=runs/tiny_causal
Hardware: any CPU with 2 cores. Memory: not measured.

| starts from           | steps x batch of frames | time, a Xeon core | result                   |
| --------------------- | ----------------------- | ----------------- | ------------------------ |
| runs/tiny_teacher_20s | 300 x 4 of 317          | 14 min            | this chain was never run |
"""

import dataclasses

import ml_collections

from relic_jax.config import PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.causal import CausalConfig
from relic_jax.train.optimizer import OptimizerConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.causal.CausalConfig`."""
    tiny = RelicConfig.tiny().stretched(80)
    return to_config_dict(
        CausalConfig(
            stage="causal",
            model=dataclasses.replace(tiny, precision=PrecisionConfig(compute="bfloat16", cache="float32")),
            vae="runs/tiny_vae_long",
            data="data/train_latents_20s",
            data_val="data/val_latents_20s",
            init_from="runs/tiny_teacher_20s",
            steps=300,
            batch=4,
            frames=317,
            optimizer=OptimizerConfig(kind="muon", learning_rate=3e-3, warmup=20, schedule="cosine"),
            ema=0.99,
            sample_every=150,
            save_every=100,
            balance_actions=True,
            text_drop=0.1,
            pose_drop=0.3,
            context_noise=0.15,
        )
    )
