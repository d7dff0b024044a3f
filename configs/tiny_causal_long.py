"""The tiny model's student, continued with three times as many rooms.

From step 2000 of configs/tiny_causal.py on its loss falls on the rooms that it knows, and hardly on others.

Data:     runs/tiny_causal, and the clips of configs/tiny_vae_last.py, encoded by runs/tiny_vae_last:
          python -m launch.prepare_data latents --data=data/train_large --out=data/train_large_latents \\
              --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json \\
              --text=data/train_latents/text.safetensors --palindromes=0.25
          python -m launch.prepare_data latents --data=data/val --out=data/val_latents_last \\
              --checkpoint=runs/tiny_vae_last --tokenizer=data/tokenizer.json --text=data/train_latents/text.safetensors
Command:  python -m launch.train --config=configs/tiny_causal_long.py --workdir=runs/tiny_causal_long
Hardware: any CPU with 2 cores.
Result:   python -m launch.export bundle ... (its docstring), then python -m launch.evaluate world, both with
          --config.dit.yarn_scale=1 --config.vae.extra_res_blocks="()": only later stages stretch RoPE and deepen the
          VAE; see relic_jax/assets/tiny/README.md for what it reached.
"""

import ml_collections

from configs import tiny_causal


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_causal.get_config()
    cfg.update(data="data/train_large_latents", data_val="data/val_latents_last")
    cfg.update(init_from="runs/tiny_causal", steps=2400)
    cfg.causal.vae = "runs/tiny_vae_last"
    return cfg
