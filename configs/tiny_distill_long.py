"""The tiny model's student, distilled on for longer with each kind of memory: what launch.evaluate revisit compares.

Regression counts the first 5 s, as far as a picture and the way from it go, and every place that the camera has been at
before, which is memory's task; steadiness holds colours and detail. All kinds have one start and one budget. `plain`
is `relic` on clips of which none was made to turn back. configs/tiny_distill_steady.py goes on from `relic`.

Data:     runs/tiny_teacher_long with its clips, and runs/tiny_distill_last; for `plain` the clips as they are:
          python -m launch.prepare_data latents --data=data/train_long --out=data/train_latents_long_plain \
              --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json \
              --text=data/train_latents/text.safetensors
Command:  python -m launch.train --config=configs/tiny_distill_long.py --workdir=runs/tiny_distill_long
          for m in window full relic_kv plain; do
              python -m launch.train --config=configs/tiny_distill_long.py:$m --workdir=runs/tiny_distill_long_$m
          done
Hardware: one GPU: five runs at once on an H200 take 1.3 to 1.6 s a step each.
Result:   python -m launch.export bundle ... of each, then
          python -m launch.evaluate revisit --models=relic=DIR,window=DIR,full=DIR,relic_kv=DIR; see BENCHMARKS.md.
"""

import ml_collections

from configs import tiny_distill_20s
from relic_jax.config import MEMORIES, ConfigError

KINDS = {**MEMORIES, "plain": MEMORIES["relic"]}


def get_config(memory: str = "relic") -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`. `memory` is one of `KINDS`."""
    if memory not in KINDS:
        raise ConfigError(f"configs/tiny_distill_long.py:{memory}: {memory!r} is not one of {', '.join(KINDS)}")
    cfg = tiny_distill_20s.get_config()
    cfg.model.memory.update(KINDS[memory])
    cfg.model.precision.compute = "float32"
    cfg.update(data="data/train_latents_long" + ("_plain" if memory == "plain" else ""))
    cfg.update(init_from="runs/tiny_distill_last", steps=100, batch=8, ema=0.98)
    cfg.update(log_every=10, sample_every=50, save_every=50)
    cfg.distill.update(teacher="runs/tiny_teacher_long", micro_batch=8, generator_every=1, ema_start=0, pose_drop=0.1)
    cfg.distill.update(regression=8.0, regression_latents=20, regression_revisits=80, steadiness=1.0)
    return cfg
