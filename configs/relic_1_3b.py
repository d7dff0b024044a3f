"""RELIC at the size of Wan 2.1's small model: a 1.3B transformer, 480 x 832 pixels at 16 FPS, memory of 20 s.

Command:  python -m launch.plan --config=configs/relic_1_3b.py --device=h100 --task=stream
          (to stream: python -m launch.generate --config=configs/relic_1_3b.py --checkpoint=DIR ...)
Hardware: 1 x H100 80 GB; 12 heads can be divided over 2, 3, 4, 6 or 12 devices.
Memory:   what the command above prints; see BENCHMARKS.md.
Result:   not run. No weights of this model exist, here or anywhere.
"""

import ml_collections

from relic_jax.config import RelicConfig, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.config.RelicConfig`."""
    return to_config_dict(RelicConfig.wan_1_3b())
