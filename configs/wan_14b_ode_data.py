"""Trajectories of the 14B teacher, 20 s each: what configs/wan_14b_ode.py learns from.

Data:     data/latents (configs/wan.py says how it is made), and runs/wan_14b_teacher_20s
Command:  python -m launch.train --config=configs/wan_14b_ode_data.py --workdir=runs/wan_14b_ode_data
Hardware: 1 x H100 80 GB; one process. Stopped, the same command goes on shard by shard.
Memory:   52.2 GiB a device, by
          python -m launch.plan --config=configs/wan_14b_ode_data.py --device=h100 --task=ode_data
Time:     26 minutes or more a trajectory on a device, 6.0 hours as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 2048 trajectories of 48 Euler steps with guidance on the text, five points of each kept.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.trajectories.TrajectoryConfig`."""
    return to_config_dict(wan.ode_data("wan_14b"))
