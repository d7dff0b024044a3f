"""The tiny model learns what words mean: two latents a clip, most of them without their picture.

The models before it had shut their eyes to text: every query of cross-attention looked at the padding after the
sentence, to seven digits. As long as a picture shows the scene, a sentence about it is noise to a model that can't
read yet, and eight sentences a step teach nobody to read. Here the text path starts anew, pictures are hidden, and
short clips leave room for 64 sentences a step.

Data:     that of configs/tiny_causal_long.py, and runs/tiny_teacher_again
Command:  python -m launch.train --config=configs/tiny_teacher_words.py --workdir=runs/tiny_teacher_words
Hardware: any CPU with 2 cores.
Result:   a start for configs/tiny_teacher_5s.py.
"""

import ml_collections

from configs import tiny_teacher_again


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_teacher_again.get_config()
    cfg.update(init_from="runs/tiny_teacher_again", fresh=("text_embedding", "blocks.cross_attention"))
    cfg.update(steps=600, batch=64, frames=5, balance_actions=False, sample_every=200, save_every=200)
    cfg.teacher.picture_drop = 0.7
    return cfg
