"""The student's start at Wan's two sizes: the teacher's trajectories regressed under hybrid forcing (SPEC 5).

Data:     runs/wan_14b_ode_data, runs/wan_14b_teacher_20s, and held-out clips in data/latents_val
Command:  python -m launch.train --config=configs/wan_ode.py:14b --workdir=runs/wan_14b_ode
Plan:     python -m launch.plan --config=configs/wan_ode.py:14b --device=h100 --task=ode
Result:   not run. Distillation starts from here. At most 31,200 tokens a clip, a quarter of the clip's. Memory and time
          are the compiler's account and bounds, by that command.

| argument | H100 80 GB, mesh | steps x batch | memory, GiB | time at best | as compiled now |
| -------- | ---------------- | ------------- | ----------- | ------------ | --------------- |
| 1_3b     | 32, fsdp=32      | 2000 x 64     | 37.1        | 1.8 h        | 7.2 h           |
| 14b      | 64, fsdp=64      | 2000 x 64     | 57.2        | 4.2 h        | 16.6 h          |
"""

import ml_collections

from relic_jax.config import ConfigError, RelicConfig, to_config_dict
from relic_jax.train.ode import OdeConfig
from relic_jax.train.optimizer import OptimizerConfig

SIZES = {"1_3b": (RelicConfig.wan_1_3b(), "fsdp=32"), "14b": (RelicConfig.wan_14b(), "fsdp=64")}


def get_config(size: str = "14b") -> ml_collections.ConfigDict:
    """A `relic_jax.train.ode.OdeConfig`."""
    if size not in SIZES:
        raise ConfigError(f"configs/wan_ode.py:{size}: expected one of {', '.join(SIZES)}")
    model, mesh = SIZES[size]
    return to_config_dict(
        OdeConfig(
            stage="ode",
            model=model.stretched(80),
            vae="weights/vae",
            data=f"runs/wan_{size}_ode_data",
            data_val="data/latents_val",
            init_from=f"runs/wan_{size}_teacher_20s",
            steps=2000,
            batch=64,
            frames=317,
            mesh=mesh,
            recompute=True,
            optimizer=OptimizerConfig(learning_rate=1e-5, warmup=100, betas=(0.9, 0.999)),
            sample_every=500,
            save_every=250,
            pose_drop=0.0,
        )
    )
