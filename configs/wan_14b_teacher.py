"""The 14B teacher on clips of 5 s: 21 latents, bidirectional.

Data:     data/latents (configs/wan.py says how it is made), and weights/wan_14b/dit (Wan 2.1's own weights, converted)
Command:  python -m launch.train --config=configs/wan_14b_teacher.py --workdir=runs/wan_14b_teacher
Hardware: 64 x H100 80 GB, mesh fsdp=64.
Memory:   47.4 GiB a device, by
          python -m launch.plan --config=configs/wan_14b_teacher.py --device=h100 --task=teacher
Time:     15.1 hours or more for all 5000 steps, 3.2 days as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 5000 iterations, as the paper has them; the weights stay, they judge rollouts of 5 s.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.teacher("wan_14b", 5, batch=64, mesh="fsdp=64"))
