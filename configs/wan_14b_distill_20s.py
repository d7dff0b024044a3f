"""The 14B student, distilled on its own video of 20 s, judged by the teacher of that length (replayed DMD).

Data:     data/latents (configs/wan.py says how it is made), runs/wan_14b_distill_10s and runs/wan_14b_teacher_20s
Command:  python -m launch.train --config=configs/wan_14b_distill_20s.py --workdir=runs/wan_14b_distill_20s
Hardware: 64 x H100 80 GB, mesh fsdp=8,seq=8; the clips of a batch of 64 are rolled out 8 together.
Memory:   32.2 GiB a device, by
          python -m launch.plan --config=configs/wan_14b_distill_20s.py --device=h100 --task=distill
Time:     6.6 hours or more for all 150 steps, 1.9 days as compiled now (attention's logits in memory):
          bounds, by the same command.
Result:   not run. 150 steps, the student moves at every fifth. This is the student that is served.
"""

import ml_collections

from configs import wan
from relic_jax.config import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(wan.distill("wan_14b", 20, micro_batch=8, mesh="fsdp=8,seq=8"))
