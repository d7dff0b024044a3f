"""The tiny model's student on the latents of the VAE that ships, which moved a little since configs/tiny_vae_last.py.

Data:     runs/tiny_causal_last, and clips encoded by runs/tiny_vae_final:
          python -m launch.prepare_data latents --data=data/train --out=data/train_final_latents \\
              --checkpoint=runs/tiny_vae_final --tokenizer=data/tokenizer.json \\
              --text=data/train_latents/text.safetensors --palindromes=0.25
          python -m launch.prepare_data latents --data=data/val --out=data/val_final_latents \\
              --checkpoint=runs/tiny_vae_final --tokenizer=data/tokenizer.json \\
              --text=data/train_latents/text.safetensors
Command:  python -m launch.train --config=configs/tiny_causal_final.py --workdir=runs/tiny_causal_final
Hardware: any CPU with 2 cores.
Result:   python -m launch.export bundle ... (its docstring), then python -m launch.evaluate world; see
          relic_jax/assets/tiny/README.md for what it reached.
"""

import ml_collections

from configs import tiny_causal_last


def get_config() -> ml_collections.ConfigDict:
    """A `relic_jax.train.stage.TrainConfig`."""
    cfg = tiny_causal_last.get_config()
    cfg.update(data="data/train_final_latents", data_val="data/val_final_latents", init_from="runs/tiny_causal_last")
    cfg.update(steps=600, learning_rate=2e-3)
    cfg.causal.update(vae="runs/tiny_vae_final", opening=0.6)
    return cfg
