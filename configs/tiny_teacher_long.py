"""The tiny model's teacher of 20 s, trained on for longer and with three times as many rooms: it judges what ships.

Data:     runs/tiny_teacher_20s, and clips of 20 s, encoded:
          python -m launch.prepare_data world --clips=1200 --frames=317 --seed=2 --out=data/train_long
          python -m launch.prepare_data latents --data=data/train_long --out=data/train_latents_long \
              --palindromes=0.5 --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json \
              --text=data/train_latents/text.safetensors
Command:  python -m launch.train --config=configs/tiny_teacher_long.py --workdir=runs/tiny_teacher_long
Hardware: one GPU.
Result:   val_gain_db in runs/tiny_teacher_long/metrics.jsonl; the model card says what it reached.
"""

import ml_collections

from configs import tiny_teacher_20s


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_teacher_20s.get_config()
    cfg.update(data="data/train_latents_long", init_from="runs/tiny_teacher_20s", steps=600, batch=16)
    cfg.update(learning_rate=3e-3, warmup=50, ema=0.995, log_every=50, sample_every=600, save_every=500)
    cfg.model.precision.compute = "float32"
    return cfg
