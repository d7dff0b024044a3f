"""The tiny model with each kind of memory, from one start and with one budget: what launch.evaluate revisit compares.

The start, configs/tiny_causal_last.py, has had its last 600 steps with memory `relic`.

Data:     runs/tiny_causal_last, and the clips of configs/tiny_vae.py, encoded by runs/tiny_vae_last:
          python -m launch.prepare_data latents --data=data/train --out=data/train_latents_last --palindromes=0.25 \\
              --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json \\
              --text=data/train_latents/text.safetensors
Command:  for m in relic window full relic_kv; do
              python -m launch.train --config=configs/tiny_memory.py:$m --workdir=runs/tiny_memory_$m
          done
Hardware: any CPU with 2 cores.
Result:   python -m launch.export bundle ... of each, then
          python -m launch.evaluate revisit --models=relic=DIR,window=DIR,full=DIR,relic_kv=DIR; both with
          --config.dit.yarn_scale=1, for only later stages stretch RoPE; see BENCHMARKS.md.
"""

import ml_collections

from configs import tiny_causal_last
from relic_jax.config import MEMORIES, ConfigError


def get_config(memory: str = "relic") -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`. `memory` is one of `MEMORIES`."""
    if memory not in MEMORIES:
        raise ConfigError(f"configs/tiny_memory.py:{memory}: {memory!r} is not one of {', '.join(MEMORIES)}")
    cfg = tiny_causal_last.get_config()
    cfg.model.memory.update(MEMORIES[memory])
    cfg.update(data="data/train_latents_last", init_from="runs/tiny_causal_last", steps=300)
    cfg.update(sample_every=300, save_every=100)
    cfg.causal.opening = 0.2
    return cfg
