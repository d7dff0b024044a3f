"""The tiny model: 64 x 96 pixels at 16 FPS, the size that ships with the repository and runs on two CPU cores.

RoPE is stretched to its 80 latents of memory (20 s), and the VAE is one residual block deeper at its two finer levels,
as in the last stages of their training.

Command:  python -m launch.generate --config=configs/tiny.py --image=PNG --prompt="..." --actions="w-32,wl-48" \\
              --out=out.mp4
Hardware: any CPU with 2 cores.
Result:   a video of the actions and a contact sheet beside it; speed in BENCHMARKS.md.
"""

import dataclasses

import ml_collections

from relic_jax.config import RelicConfig, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.config.RelicConfig`."""
    cfg = RelicConfig.tiny().stretched(80)
    return to_config_dict(dataclasses.replace(cfg, vae=dataclasses.replace(cfg.vae, extra_res_blocks=(1, 1, 0))))
