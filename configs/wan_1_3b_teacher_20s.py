"""The 1.3B teacher on clips of 20 s: 80 latents, bidirectional. RoPE stretched by YaRN.

Data:     data/latents (configs/wan.py says how it is made), and runs/wan_1_3b_teacher_10s
Command:  python -m launch.train --config=configs/wan_1_3b_teacher_20s.py --workdir=runs/wan_1_3b_teacher_20s
Hardware: 32 x H100 80 GB, mesh fsdp=8,seq=4.
Memory:   45.5 GiB a device, by
          python -m launch.plan --config=configs/wan_1_3b_teacher_20s.py --device=h100 --task=teacher
Time:     23.3 hours or more for all 4000 steps, 7.8 days as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 4000 iterations, as the paper has them; the weights stay, they judge rollouts of 20 s.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.teacher("wan_1_3b", 20, batch=32, mesh="fsdp=8,seq=4"))
