"""Trajectories of the tiny model's teacher, 20 s each: what configs/tiny_ode.py learns from.

Data:     runs/tiny_teacher_20s and its clips, for their pictures, captions and camera paths
Command:  python -m launch.train --config=configs/tiny_ode_data.py --workdir=runs/tiny_ode_data
Hardware: any CPU with 2 cores; one process a core. Stopped, the same command goes on shard by shard.
Result:   64 trajectories of 16 Euler steps, five points of each kept, in runs/tiny_ode_data: a TFDS data set; 4 min on
          two cores of an Intel Xeon. Memory: not measured.
"""

import dataclasses

import ml_collections

from relic_jax.config import PrecisionConfig, RelicConfig, to_config_dict
from relic_jax.data.trajectories import TrajectoryConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.data.trajectories.TrajectoryConfig`."""
    tiny = RelicConfig.tiny().stretched(80)
    return to_config_dict(
        TrajectoryConfig(
            stage="ode_data",
            model=dataclasses.replace(tiny, precision=PrecisionConfig(compute="bfloat16", cache="float32")),
            teacher="runs/tiny_teacher_20s",
            data="data/train_latents_20s",
            frames=317,
            clips=64,
            batch=1,
            steps=16,
            guidance=1.0,  # the tiny teacher's text decides next to nothing where there is a picture
            shift=5.0,
            seed=0,
            workers=0,
        )
    )
