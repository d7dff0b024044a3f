"""The 14B teacher on clips of 20 s: 80 latents, bidirectional. RoPE stretched by YaRN.

Data:     data/latents (configs/wan.py says how it is made), and runs/wan_14b_teacher_10s
Command:  python -m launch.train --config=configs/wan_14b_teacher_20s.py --workdir=runs/wan_14b_teacher_20s
Hardware: 64 x H100 80 GB, mesh fsdp=8,seq=8.
Memory:   45.4 GiB a device, by
          python -m launch.plan --config=configs/wan_14b_teacher_20s.py --device=h100 --task=teacher
Time:     1.2 days or more for all 4000 steps, 8.3 days as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 4000 iterations, as the paper has them; the weights stay, they judge rollouts of 20 s.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.teacher("wan_14b", 20, batch=16, mesh="fsdp=8,seq=8"))
