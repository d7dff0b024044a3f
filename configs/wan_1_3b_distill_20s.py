"""The 1.3B student, distilled on its own video of 20 s, judged by the teacher of that length (replayed DMD).

Data:     data/latents (configs/wan.py says how it is made), runs/wan_1_3b_distill_10s and runs/wan_1_3b_teacher_20s
Command:  python -m launch.train --config=configs/wan_1_3b_distill_20s.py --workdir=runs/wan_1_3b_distill_20s
Hardware: 32 x H100 80 GB, mesh fsdp=8,seq=4; the clips of a batch of 64 are rolled out 8 together.
Memory:   16.8 GiB a device, by
          python -m launch.plan --config=configs/wan_1_3b_distill_20s.py --device=h100 --task=distill
Time:     2.5 hours or more for all 150 steps, 19.5 hours as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 150 steps, the student moves at every fifth. This is the student that is served.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.distill("wan_1_3b", 20, micro_batch=8, mesh="fsdp=8,seq=4"))
