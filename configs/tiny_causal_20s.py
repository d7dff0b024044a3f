"""The tiny model's student begins: clips of 20 s, RoPE stretched to them by YaRN, under the hybrid-forcing mask.

It doesn't start from the 20 s teacher, as the paper's does, but from what the teachers started from, too: that has
learnt to stream for thousands of steps, which the bidirectional stages undo.

Data:     runs/tiny_causal_last, and the clips of configs/tiny_teacher_20s.py
Command:  python -m launch.train --config=configs/tiny_causal_20s.py --workdir=runs/tiny_causal_20s
Hardware: any CPU with 2 cores.
Result:   val_gain_db in runs/tiny_causal_20s/metrics.jsonl; configs/tiny_ode.py goes on.
"""

import ml_collections

from configs import tiny_causal_last
from relic_jax.config import RelicConfig, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_causal_last.get_config()
    cfg.update(data="data/train_latents_20s", data_val="data/val_latents_20s")
    cfg.init_from = "runs/tiny_causal_last"
    cfg.update(steps=300, batch=4, frames=317, sample_every=150, save_every=100)
    cfg.model.dit = to_config_dict(RelicConfig.tiny().stretched(80).dit)
    return cfg
