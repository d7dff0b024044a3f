"""The tiny model's teacher, continued on clips of 20 s: 80 latents, RoPE stretched to them by YaRN.

Half of the clips are palindromes (SPEC 8): out, and back the same way. They are what a revisit is learnt from.

Data:     runs/tiny_teacher_10s, and clips of 20 s, encoded:
          python -m launch.prepare_data world --clips=384 --frames=317 --seed=1 --out=data/train_20s
          python -m launch.prepare_data world --clips=16 --frames=317 --seed=801 --split=val --out=data/val_20s
          python -m launch.prepare_data latents --data=data/train_20s --out=data/train_latents_20s --palindromes=0.5 \
              --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json \
              --text=data/train_latents/text.safetensors
          python -m launch.prepare_data latents --data=data/val_20s --out=data/val_latents_20s \
              --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json \
              --text=data/train_latents/text.safetensors
Command:  python -m launch.train --config=configs/tiny_teacher_20s.py --workdir=runs/tiny_teacher_20s
Hardware: any CPU with 2 cores.
Result:   val_gain_db in runs/tiny_teacher_20s/metrics.jsonl. It stays: the student starts from it and is judged by it.
"""

import ml_collections

from configs import tiny_teacher_10s
from relic_jax.config import RelicConfig, to_config_dict


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_teacher_10s.get_config()
    cfg.update(data="data/train_latents_20s", data_val="data/val_latents_20s", init_from="runs/tiny_teacher_10s")
    cfg.update(steps=120, frames=317, sample_every=60, save_every=30)
    cfg.model.dit = to_config_dict(RelicConfig.tiny().stretched(80).dit)
    return cfg
