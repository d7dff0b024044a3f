"""The tiny model's teacher: bidirectional flow matching on clips of 5 s, then 10 and 20 s with RoPE stretched by YaRN.

Each length stays: it scores the student's rollouts of that length. Half of the clips of 20 s are palindromes (SPEC 8):
out, and back the same way. They are what a revisit is learnt from.

Data:     clips encoded by runs/tiny_vae_long, as `python -m launch.recipe recipes/tiny.py --dry-run` prints them
Command:  python -m launch.train --config=configs/tiny_teacher.py:5s --workdir=runs/tiny_teacher_5s
Hardware: any CPU with 2 cores. Memory: not measured.

| argument | starts from           | steps x batch of frames | time, a Xeon core    | result                   |
| -------- | --------------------- | ----------------------- | -------------------- | ------------------------ |
| 5s       | nothing               | 800 x 8 of 81           | 23 min for 400 steps | this chain was never run |
| 10s      | runs/tiny_teacher_5s  | 160 x 4 of 157          | 12 min               |                          |
| 20s      | runs/tiny_teacher_10s | 120 x 4 of 317          | 13 min               |                          |
"""

import dataclasses

import ml_collections

from relic_jax.config import ConfigError, PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.teacher import TeacherConfig

#       latents of RoPE, steps batch frames warmup data starts from
LENGTHS = {
    "5s": (21, 800, 8, 81, 40, "latents", ""),
    "10s": (40, 160, 4, 157, 20, "latents", "runs/tiny_teacher_5s"),
    "20s": (80, 120, 4, 317, 20, "latents_20s", "runs/tiny_teacher_10s"),
}


def get_config(length: str = "5s") -> ml_collections.ConfigDict:
    """A `relic_jax.train.teacher.TeacherConfig`."""
    if length not in LENGTHS:
        raise ConfigError(f"configs/tiny_teacher.py:{length}: expected one of {', '.join(LENGTHS)}")
    latents, steps, batch, frames, warmup, data, init_from = LENGTHS[length]
    tiny = RelicConfig.tiny().stretched(latents)
    return to_config_dict(
        TeacherConfig(
            stage="teacher",
            model=dataclasses.replace(tiny, precision=PrecisionConfig(compute="bfloat16", cache="float32")),
            vae="runs/tiny_vae_long",
            data=f"data/train_{data}",
            data_val=f"data/val_{data}",
            init_from=init_from,
            steps=steps,
            batch=batch,
            frames=frames,
            optimizer=OptimizerConfig(kind="muon", learning_rate=2e-3, warmup=warmup, schedule="cosine"),
            ema=0.99,
            sample_every=steps // 2,
            save_every=steps // 4,
            balance_actions=True,
            text_drop=0.1,
            pose_drop=0.3,
        )
    )
