"""The 14B teacher on clips of 10 s: 40 latents, bidirectional. RoPE stretched by YaRN.

Data:     data/latents (configs/wan.py says how it is made), and runs/wan_14b_teacher
Command:  python -m launch.train --config=configs/wan_14b_teacher_10s.py --workdir=runs/wan_14b_teacher_10s
Hardware: 64 x H100 80 GB, mesh fsdp=32,seq=2.
Memory:   45.7 GiB a device, by
          python -m launch.plan --config=configs/wan_14b_teacher_10s.py --device=h100 --task=teacher
Time:     4.2 hours or more for all 1000 steps, 1.1 days as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 1000 iterations, as the paper has them; the weights stay, they judge rollouts of 10 s.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.teacher("wan_14b", 10, batch=32, mesh="fsdp=32,seq=2"))
