"""The tiny model's teacher for distillation, the first of three lengths: bidirectional flow matching on clips of 5 s.

It starts from configs/tiny_causal_last.py, which has learnt the longest: the weights are of one shape, only who attends
to whom differs.

Data:     runs/tiny_causal_last, and the clips of configs/tiny_vae.py, encoded by runs/tiny_vae_last:
          python -m launch.prepare_data latents --data=data/train --out=data/train_latents_last --palindromes=0.25 \\
              --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json \\
              --text=data/train_latents/text.safetensors
          python -m launch.prepare_data latents --data=data/val --out=data/val_latents_last \\
              --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json \\
              --text=data/train_latents/text.safetensors
Command:  python -m launch.train --config=configs/tiny_teacher_5s.py --workdir=runs/tiny_teacher_5s
Hardware: any CPU with 2 cores.
Result:   val_gain_db in runs/tiny_teacher_5s/metrics.jsonl. It stays: it judges the student's rollouts of 5 s.
"""

import ml_collections

from configs import tiny_teacher


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_teacher.get_config()
    cfg.update(data="data/train_latents_last", data_val="data/val_latents_last", init_from="runs/tiny_causal_last")
    cfg.update(steps=400, learning_rate=3e-3, balance_actions=True, sample_every=200, save_every=100)
    cfg.teacher.vae = "runs/tiny_vae_last"
    return cfg
