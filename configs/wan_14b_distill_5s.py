"""The 14B student, distilled on its own video of 5 s, judged by the teacher of that length (replayed DMD).

Data:     data/latents (configs/wan.py says how it is made), runs/wan_14b_ode and runs/wan_14b_teacher
Command:  python -m launch.train --config=configs/wan_14b_distill_5s.py --workdir=runs/wan_14b_distill_5s
Hardware: 64 x H100 80 GB, mesh fsdp=64; the clips of a batch of 64 are rolled out 64 together.
Memory:   59.7 GiB a device, by
          python -m launch.plan --config=configs/wan_14b_distill_5s.py --device=h100 --task=distill
Time:     1.6 hours or more for all 250 steps, 9.2 hours as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 250 steps, the student moves at every fifth. The next stretch starts from here.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.distill("wan_14b", 5, micro_batch=64, mesh="fsdp=64"))
