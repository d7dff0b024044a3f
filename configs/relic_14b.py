"""RELIC's own size: a 14B transformer, 480 x 832 pixels at 16 FPS, memory of 20 s.

Command:  python -m launch.plan --config=configs/relic_14b.py --device=h100 --mesh=seq=4 --task=stream
          (to stream: python -m launch.generate --config=configs/relic_14b.py --checkpoint=DIR ...)
Hardware: 4 x H100 80 GB with --mesh=seq=4, 1 x H200, or 1 x H100 with --config.precision.cache=float8_e4m3fn.
Memory:   38.6 GiB of each H100, 66.8 GiB of the H200, 56.5 GiB of the one H100; see BENCHMARKS.md.
Result:   not run. No weights of this size exist, here or anywhere.
"""

import ml_collections

from relic_jax.config import RelicConfig, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.config.RelicConfig`."""
    return to_config_dict(RelicConfig.wan_14b())
