"""The 1.3B student, distilled on its own video of 5 s, judged by the teacher of that length (replayed DMD).

Data:     data/latents (configs/wan.py says how it is made), runs/wan_1_3b_ode and runs/wan_1_3b_teacher
Command:  python -m launch.train --config=configs/wan_1_3b_distill_5s.py --workdir=runs/wan_1_3b_distill_5s
Hardware: 32 x H100 80 GB, mesh fsdp=32; the clips of a batch of 64 are rolled out 32 together.
Memory:   16.4 GiB a device, by
          python -m launch.plan --config=configs/wan_1_3b_distill_5s.py --device=h100 --task=distill
Time:     30 minutes or more for all 250 steps, 3.7 hours as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 250 steps, the student moves at every fifth. The next stretch starts from here.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.distill("wan_1_3b", 5, micro_batch=32, mesh="fsdp=32"))
