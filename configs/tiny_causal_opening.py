"""The tiny model's student, its openings: the first two seconds, of which all but one picture must be made.

Clips of 10 s begin once and go on often, so of what configs/tiny_causal_long.py learns from, openings are a ninth. They
are also what hangs on a single picture, and what every session begins with. Here every clip is one: 29 frames, which
fit the window, so that there is no memory.

Data:     that of configs/tiny_causal_long.py, and runs/tiny_causal_long
Command:  python -m launch.train --config=configs/tiny_causal_opening.py --workdir=runs/tiny_causal_opening
Hardware: any CPU with 2 cores.
Result:   val_gain_db (over 28 frames) in runs/tiny_causal_opening/metrics.jsonl; configs/tiny_causal_last.py goes on.
"""

import ml_collections

from configs import tiny_causal_long


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_causal_long.get_config()
    cfg.update(init_from="runs/tiny_causal_long", steps=800, batch=40, frames=29, warmup=30)
    return cfg
