"""The 1.3B student, distilled on its own video of 10 s, judged by the teacher of that length (replayed DMD).

Data:     data/latents (configs/wan.py says how it is made), runs/wan_1_3b_distill_5s and runs/wan_1_3b_teacher_10s
Command:  python -m launch.train --config=configs/wan_1_3b_distill_10s.py --workdir=runs/wan_1_3b_distill_10s
Hardware: 32 x H100 80 GB, mesh fsdp=16,seq=2; the clips of a batch of 64 are rolled out 16 together.
Memory:   15.3 GiB a device, by
          python -m launch.plan --config=configs/wan_1_3b_distill_10s.py --device=h100 --task=distill
Time:     49 minutes or more for all 150 steps, 6.2 hours as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 150 steps, the student moves at every fifth. The next stretch starts from here.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.distill("wan_1_3b", 10, micro_batch=16, mesh="fsdp=16,seq=2"))
