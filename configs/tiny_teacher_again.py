"""The tiny block-causal model made bidirectional: flow matching on clips of 5 s, where teachers for distillation begin.

It starts from configs/tiny_causal_last.py, which has learnt the longest: the weights are of one shape, only who attends
to whom differs.

Data:     that of configs/tiny_causal_long.py, and runs/tiny_causal_last
Command:  python -m launch.train --config=configs/tiny_teacher_again.py --workdir=runs/tiny_teacher_again
Hardware: any CPU with 2 cores.
Result:   val_gain_db in runs/tiny_teacher_again/metrics.jsonl.
"""

import ml_collections

from configs import tiny_teacher


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_teacher.get_config()
    cfg.update(data="data/train_large_latents", data_val="data/val_latents_last", init_from="runs/tiny_causal_last")
    cfg.update(steps=800, learning_rate=3e-3, balance_actions=True)
    cfg.teacher.vae = "runs/tiny_vae_last"
    return cfg
