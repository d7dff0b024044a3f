"""The teacher at Wan's two sizes, bidirectional: clips of 5 s, then 10 and 20 s with RoPE stretched by YaRN (SPEC 3).

It starts from Wan 2.1's own weights, converted. Each length stays: it scores the student's rollouts of that length.

Data:     clips of 480 x 832 pixels and 20 s; encoded, they serve every length, for each takes their start:
          python -m launch.prepare_data latents --data=data/clips --out=data/latents --palindromes=0.5 \\
              --checkpoint=weights/vae --text=weights/text --tokenizer=weights/tokenizer.json \\
              --config=configs/relic_14b.py
Command:  python -m launch.train --config=configs/wan_teacher.py:14b,5s --workdir=runs/wan_14b_teacher_5s
Plan:     python -m launch.plan --config=configs/wan_teacher.py:14b,5s --device=h100 --task=teacher
Result:   not run. Iterations are the paper's. Memory and time are the compiler's account and bounds, by that command:
          with attention's logits on the chip, and as compiled now (logits in memory).

| argument | H100 80 GB, mesh  | steps x batch | memory, GiB | time at best | as compiled now |
| -------- | ----------------- | ------------- | ----------- | ------------ | --------------- |
| 1_3b,5s  | 32, fsdp=32       | 5000 x 64     | 26.4        | 6.4 h        | 1.3 days        |
| 1_3b,10s | 32, fsdp=16,seq=2 | 1000 x 32     | 24.0        | 1.6 h        | 10.9 h          |
| 1_3b,20s | 32, fsdp=8,seq=4  | 4000 x 32     | 45.5        | 23.3 h       | 7.8 days        |
| 14b,5s   | 64, fsdp=64       | 5000 x 64     | 47.4        | 15.1 h       | 3.2 days        |
| 14b,10s  | 64, fsdp=32,seq=2 | 1000 x 32     | 45.7        | 4.2 h        | 1.1 days        |
| 14b,20s  | 64, fsdp=8,seq=8  | 4000 x 16     | 45.4        | 1.2 days     | 8.3 days        |
"""

import ml_collections

from relic_jax.config import ConfigError, RelicConfig, to_config_dict
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.teacher import TeacherConfig

SIZES = {"1_3b": RelicConfig.wan_1_3b(), "14b": RelicConfig.wan_14b()}
#       latents of RoPE, frames, steps, what comes before
LENGTHS = {"5s": (21, 81, 5000, ""), "10s": (40, 157, 1000, "5s"), "20s": (80, 317, 4000, "10s")}
#       batch, mesh
MESHES = {
    "1_3b,5s": (64, "fsdp=32"),
    "1_3b,10s": (32, "fsdp=16,seq=2"),
    "1_3b,20s": (32, "fsdp=8,seq=4"),
    "14b,5s": (64, "fsdp=64"),
    "14b,10s": (32, "fsdp=32,seq=2"),
    "14b,20s": (16, "fsdp=8,seq=8"),
}


def get_config(argument: str = "14b,5s") -> ml_collections.ConfigDict:
    """A `relic_jax.train.teacher.TeacherConfig`."""
    if argument not in MESHES:
        raise ConfigError(f"configs/wan_teacher.py:{argument}: expected one of {' '.join(MESHES)}")
    size, length = argument.split(",")
    (batch, mesh), (latents, frames, steps, before) = MESHES[argument], LENGTHS[length]
    return to_config_dict(
        TeacherConfig(
            stage="teacher",
            model=SIZES[size].stretched(latents),
            vae="weights/vae",
            data="data/latents",
            data_val="data/latents_val",
            init_from=f"runs/wan_{size}_teacher_{before}" if before else f"weights/wan_{size}/dit",
            steps=steps,
            batch=batch,
            frames=frames,
            mesh=mesh,
            recompute=True,
            optimizer=OptimizerConfig(learning_rate=1e-5, warmup=100, betas=(0.9, 0.999)),
            sample_every=500,
            save_every=250,
            balance_actions=True,
            shift=5.0,
            text_drop=0.1,
            pose_drop=0.0,  # actions and poses are never dropped (SPEC 3)
            picture_drop=0.0,
        )
    )
