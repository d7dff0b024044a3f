"""Trajectories of the tiny model's teacher, 20 s each: what configs/tiny_ode.py learns from.

Data:     runs/tiny_teacher_20s and its clips, for their pictures, captions and camera paths
Command:  python -m launch.train --config=configs/tiny_ode_data.py --workdir=runs/tiny_ode_data
Hardware: any CPU with 2 cores; one process a core. Stopped, the same command goes on shard by shard.
Result:   64 trajectories of 16 Euler steps, five points of each kept, in runs/tiny_ode_data: a TFDS data set.
"""

import dataclasses

import ml_collections

from relic_jax.config import PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.train.trajectories import TrajectoryConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.trajectories.TrajectoryConfig`."""
    model = dataclasses.replace(RelicConfig.tiny(), precision=PrecisionConfig("bfloat16", "float32"))
    return to_config_dict(
        TrajectoryConfig(
            stage="ode_data",
            model=model.stretched(80),
            teacher="runs/tiny_teacher_20s",
            data="data/train_latents_20s",
            frames=317,
            clips=64,
            steps=16,
            batch=1,
            guidance=1.0,  # the tiny teacher's text decides next to nothing where there is a picture
        )
    )
