"""The tiny model's student, distilled on its own video: 5 s, then 10 and 20, each scored by the teacher of its length.

The loss is the paper's alone, distribution matching by replayed back-propagation. RoPE is the student's own at every
length, stretched to 20 s; each teacher keeps that of its length.

Data:     the clips of configs/tiny_teacher.py, runs/tiny_teacher_5s, _10s, _20s and runs/tiny_ode
Command:  python -m launch.train --config=configs/tiny_distill.py:5s --workdir=runs/tiny_distill_5s
Hardware: any CPU with 2 cores. Memory: not measured.

| argument | starts from           | steps x batch of frames | time, 2 Xeon cores | result                   |
| -------- | --------------------- | ----------------------- | ------------------ | ------------------------ |
| 5s       | runs/tiny_ode         | 150 x 8 of 77           | 13 min             | this chain was never run |
| 10s      | runs/tiny_distill_5s  | 80 x 4 of 157           | 8 min              |                          |
| 20s      | runs/tiny_distill_10s | 60 x 2 of 317           | 9 min              |                          |
"""

import dataclasses

import ml_collections

from relic_jax.config import ConfigError, PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.distill import DistillConfig
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.terms import score

#       latents of the teacher's RoPE, steps batch frames, EMA starts, data, starts from
LENGTHS = {
    "5s": (21, 150, 8, 77, 50, "latents", "runs/tiny_ode"),
    "10s": (40, 80, 4, 157, 1, "latents", "runs/tiny_distill_5s"),
    "20s": (80, 60, 2, 317, 1, "latents_20s", "runs/tiny_distill_10s"),
}


def get_config(length: str = "5s") -> ml_collections.ConfigDict:
    """A `relic_jax.train.distill.DistillConfig`."""
    if length not in LENGTHS:
        raise ConfigError(f"configs/tiny_distill.py:{length}: expected one of {', '.join(LENGTHS)}")
    latents, steps, batch, frames, ema_start, data, init_from = LENGTHS[length]
    tiny = RelicConfig.tiny().stretched(80)
    adam = OptimizerConfig(
        kind="adamw",
        learning_rate=2e-4,
        warmup=0,
        schedule="constant",
        betas=(0.0, 0.999),
        weight_decay=0.01,
        clip=10.0,
    )
    return to_config_dict(
        DistillConfig(
            stage="distill",
            model=dataclasses.replace(tiny, precision=PrecisionConfig(compute="bfloat16", cache="float32")),
            vae="runs/tiny_vae_long",
            data=f"data/train_{data}",
            data_val=f"data/val_{data}",
            init_from=init_from,
            steps=steps,
            batch=batch,
            micro_batch=batch,
            frames=frames,
            optimizer=adam,
            critic_optimizer=dataclasses.replace(adam, learning_rate=3e-4),
            terms={
                "score": score.Config(
                    teacher=f"runs/tiny_teacher_{length}",
                    teacher_dit=RelicConfig.tiny().stretched(latents).dit,
                    guidance=1.0,  # as in configs/tiny_ode_data.py
                    shift=5.0,
                    sub_clip=None,
                ),
                "regression": None,
            },
            generator_every=5,
            stop_on_collapse=True,
            ema=0.9,  # of 30 updates, not of thousands
            ema_start=ema_start,
            pose_drop=0.0,
            balance_actions=True,
            log_every=10,
            sample_every=steps // 3,
            save_every=steps // 6,
        )
    )
