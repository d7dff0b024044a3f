"""The 1.3B student's start: the teacher's trajectories of 20 s regressed at four timesteps, block-causal.

Data:     runs/wan_1_3b_ode_data, runs/wan_1_3b_teacher_20s, and held-out clips in data/latents_val
Command:  python -m launch.train --config=configs/wan_1_3b_ode.py --workdir=runs/wan_1_3b_ode
Hardware: 32 x H100 80 GB, mesh fsdp=32; at most 31,200 tokens a clip, a quarter of the clip's.
Memory:   37.1 GiB a device, by
          python -m launch.plan --config=configs/wan_1_3b_ode.py --device=h100 --task=ode
Time:     1.8 hours or more for all 2000 steps, 7.2 hours as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. Distillation starts from here.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.ode("wan_1_3b", batch=64, mesh="fsdp=32"))
