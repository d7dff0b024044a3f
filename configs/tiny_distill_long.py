"""The tiny model's student, distilled for longer on a GPU, with each kind of memory: `relic` is what ships.

The stretch before it made the first two seconds exact and walks of a minute pale. Here regression counts 5 s, and every
place that the camera has been at before; steadiness holds colours and detail. `launch.evaluate revisit` compares the
kinds, all of one start and one budget; `plain` is `relic` on clips of which none was made to turn back.

Data:     that of configs/tiny_teacher_long.py, runs/tiny_teacher_long and runs/tiny_distill_last; for `plain`
          python -m launch.prepare_data latents --data=data/train_long --out=data/train_latents_long_plain \
              --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json \
              --text=data/train_latents/text.safetensors
Command:  for m in relic window full relic_kv plain; do
              python -m launch.train --config=configs/tiny_distill_long.py:$m --workdir=runs/tiny_distill_long_$m
          done
Hardware: one GPU.
Result:   val_gain_db and the measures of collapse in runs/tiny_distill_long_*/metrics.jsonl; the model card and
          BENCHMARKS.md say what they reached.
"""

import ml_collections

from configs import tiny_distill_20s
from relic_jax.config import MEMORIES, ConfigError


def get_config(memory: str = "relic") -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`. `memory` is one of `MEMORIES`, or `plain`."""
    if memory not in (*MEMORIES, "plain"):
        raise ConfigError(
            f"configs/tiny_distill_long.py:{memory}: {memory!r} is not one of {', '.join((*MEMORIES, 'plain'))}"
        )
    cfg = tiny_distill_20s.get_config()
    cfg.model.memory.update(MEMORIES["relic" if memory == "plain" else memory])
    cfg.model.precision.compute = "float32"
    cfg.update(data="data/train_latents_long" + ("_plain" if memory == "plain" else ""))
    cfg.update(init_from="runs/tiny_distill_last", steps=500, batch=8, ema=0.98)
    cfg.update(log_every=10, sample_every=1000, save_every=50, keep=40)
    cfg.distill.update(teacher="runs/tiny_teacher_long", micro_batch=8, generator_every=1, ema_start=0, pose_drop=0.1)
    cfg.distill.update(regression=8.0, regression_latents=20, regression_revisits=True, steadiness=1.0)
    return cfg
