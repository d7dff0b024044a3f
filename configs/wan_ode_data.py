"""Trajectories of the 20 s teacher at Wan's two sizes: what configs/wan_ode.py learns from (SPEC 5).

Data:     runs/wan_14b_teacher_20s and its clips, for their pictures, captions and camera paths
Command:  python -m launch.train --config=configs/wan_ode_data.py:14b --workdir=runs/wan_14b_ode_data
Plan:     python -m launch.plan --config=configs/wan_ode_data.py:14b --device=h100 --task=ode_data
Result:   not run. 2048 trajectories of 48 Euler steps with guidance on the text, five points of each kept. One process
          a device, each makes its share of the shards; stopped, the same command goes on shard by shard. Memory and
          time are the compiler's account and bounds, by that command.

| argument | H100 80 GB | memory, GiB | a trajectory at best | as compiled now |
| -------- | ---------- | ----------- | -------------------- | --------------- |
| 1_3b     | 1          | 13.5        | 5 min                | 1.0 h           |
| 14b      | 1          | 52.2        | 26 min               | 6.0 h           |
"""

import ml_collections

from relic_jax.config import ConfigError, RelicConfig, to_config_dict
from relic_jax.data.trajectories import TrajectoryConfig

SIZES = {"1_3b": RelicConfig.wan_1_3b(), "14b": RelicConfig.wan_14b()}


def get_config(size: str = "14b") -> ml_collections.ConfigDict:
    """A `relic_jax.data.trajectories.TrajectoryConfig`."""
    if size not in SIZES:
        raise ConfigError(f"configs/wan_ode_data.py:{size}: expected one of {', '.join(SIZES)}")
    return to_config_dict(
        TrajectoryConfig(
            stage="ode_data",
            model=SIZES[size].stretched(80),
            teacher=f"runs/wan_{size}_teacher_20s",
            data="data/latents",
            frames=317,
            clips=2048,
            batch=1,
            guidance=4.0,
            steps=48,
            shift=5.0,
            seed=0,
        )
    )
