"""The tiny model: 64 x 96 pixels at 16 FPS, the size that ships with the repository and runs on two CPU cores.

RoPE is stretched to its 80 latents of memory (20 s), as in the last stages of its training.

Command:  python -m launch.generate --config=configs/tiny.py --image=PNG --prompt="..." --actions="w-32,wl-48" \\
              --out=out.mp4
Hardware: any CPU with 2 cores.
Result:   a video of the actions and a contact sheet beside it; speed in BENCHMARKS.md.
"""

import ml_collections

from relic_jax.config import RelicConfig, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.config.RelicConfig`."""
    return to_config_dict(RelicConfig.tiny().stretched(80))
