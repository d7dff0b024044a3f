"""The student at Wan's two sizes, distilled on its own video of 5, 10 and 20 s by replayed DMD (SPEC 6).

Each length is scored by the teacher of that length. RoPE is the student's own at every length, stretched to 20 s; each
teacher keeps that of its length. Rates, betas, clip and moving average are the Self-Forcing lineage's.

Data:     data/latents as for configs/wan_teacher.py, runs/wan_14b_ode, and the teachers
Command:  python -m launch.train --config=configs/wan_distill.py:14b,5s --workdir=runs/wan_14b_distill_5s
Plan:     python -m launch.plan --config=configs/wan_distill.py:14b,5s --device=h100 --task=distill
Result:   not run. The student moves at every fifth step; that of 20 s is the one that is served. Memory and time are
          the compiler's account and bounds, by that command: with attention's logits on the chip, and as compiled now.

| argument | H100 80 GB, mesh  | steps x batch, rolled out together | memory, GiB | time at best | as compiled now |
| -------- | ----------------- | ---------------------------------- | ----------- | ------------ | --------------- |
| 1_3b,5s  | 32, fsdp=32       | 250 x 64, 32                       | 16.4        | 30 min       | 3.7 h           |
| 1_3b,10s | 32, fsdp=16,seq=2 | 150 x 64, 16                       | 15.3        | 49 min       | 6.2 h           |
| 1_3b,20s | 32, fsdp=8,seq=4  | 150 x 64, 8                        | 16.8        | 2.5 h        | 19.5 h          |
| 14b,5s   | 64, fsdp=64       | 250 x 64, 64                       | 59.7        | 1.6 h        | 9.2 h           |
| 14b,10s  | 64, fsdp=32,seq=2 | 150 x 64, 32                       | 50.9        | 2.3 h        | 14.8 h          |
| 14b,20s  | 64, fsdp=8,seq=8  | 150 x 64, 8                        | 32.2        | 6.6 h        | 1.9 days        |
"""

import dataclasses

import ml_collections

from relic_jax.config import ConfigError, RelicConfig, to_config_dict
from relic_jax.train.distill import DistillConfig
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.terms import score

SIZES = {"1_3b": RelicConfig.wan_1_3b(), "14b": RelicConfig.wan_14b()}
#       latents of the teacher's RoPE, frames of whole blocks, steps, EMA starts, what comes before
LENGTHS = {
    "5s": (21, 77, 250, 200, "ode"),
    "10s": (40, 157, 150, 1, "distill_5s"),
    "20s": (80, 317, 150, 1, "distill_10s"),
}
#       clips that are rolled out together, mesh
MESHES = {
    "1_3b,5s": (32, "fsdp=32"),
    "1_3b,10s": (16, "fsdp=16,seq=2"),
    "1_3b,20s": (8, "fsdp=8,seq=4"),
    "14b,5s": (64, "fsdp=64"),
    "14b,10s": (32, "fsdp=32,seq=2"),
    "14b,20s": (8, "fsdp=8,seq=8"),
}


def get_config(argument: str = "14b,5s") -> ml_collections.ConfigDict:
    """A `relic_jax.train.distill.DistillConfig`."""
    if argument not in MESHES:
        raise ConfigError(f"configs/wan_distill.py:{argument}: expected one of {' '.join(MESHES)}")
    size, length = argument.split(",")
    (micro_batch, mesh), (latents, frames, steps, ema_start, before) = MESHES[argument], LENGTHS[length]
    adam = OptimizerConfig(learning_rate=2e-6, betas=(0.0, 0.999), weight_decay=0.01, clip=10.0)
    return to_config_dict(
        DistillConfig(
            stage="distill",
            model=SIZES[size].stretched(80),
            vae="weights/vae",
            data="data/latents",
            data_val="data/latents_val",
            init_from=f"runs/wan_{size}_{before}",
            steps=steps,
            batch=64,
            micro_batch=micro_batch,
            frames=frames,
            mesh=mesh,
            recompute=True,
            optimizer=adam,
            critic_optimizer=dataclasses.replace(adam, learning_rate=4e-7),
            terms={
                "score": score.Config(
                    teacher=f"runs/wan_{size}_teacher_{length}",
                    teacher_dit=SIZES[size].stretched(latents).dit,
                    guidance=4.0,
                    shift=5.0,
                )
            },
            generator_every=5,
            ema=0.99,
            ema_start=ema_start,
            balance_actions=True,
            sample_every=50,
            save_every=25,
        )
    )
