"""The tiny model's teacher, the second of three stages: bidirectional flow matching on whole clips.

Data:     runs/tiny_vae and the clips of configs/tiny_vae.py
Command:  python -m launch.train --config=configs/tiny_teacher.py --workdir=runs/tiny_teacher
Hardware: any CPU with 2 cores.
Result:   loss and samples in runs/tiny_teacher.
"""

import ml_collections

from relic_jax.config import RelicConfig, to_config_dict
from relic_jax.train.stage import TeacherOptions, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    return to_config_dict(
        TrainConfig(
            stage="teacher",
            model=RelicConfig.tiny(),
            data="data/world/train",
            data_val="data/world/val",
            steps=2000,
            batch=4,
            frames=125,
            learning_rate=1.5e-3,
            ema=0.99,
            teacher=TeacherOptions(vae="runs/tiny_vae"),
        )
    )
