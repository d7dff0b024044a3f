"""The tiny model's VAE: Wan's architecture on folded pixels, L1 + MSE + KL.

Its causal convolutions see some 16 latents back. Trained on 9 frames (3 latents) alone, what is beyond has never been
seen, and pictures fall apart from frame 10 on; `long` goes on with windows of 41 frames.

Data:     python -m launch.prepare_data world --clips=1600 --frames=157 --out=data/train
          python -m launch.prepare_data world --clips=64 --frames=157 --seed=800 --split=val --out=data/val
Command:  python -m launch.train --config=configs/tiny_vae.py:short --workdir=runs/tiny_vae_short
Hardware: any CPU with 2 cores. Memory: not measured.

| argument | starts from         | steps x batch of frames | time, 2 EPYC cores | result               |
| -------- | ------------------- | ----------------------- | ------------------ | -------------------- |
| short    | nothing             | 5000 x 2 of 9           | 34 min             | 28.4 dB on 9 frames  |
| long     | runs/tiny_vae_short | 1200 x 1 of 41          | 18 min             | 27.3 dB on 81 frames |
"""

import ml_collections

from relic_jax.config import ConfigError, RelicConfig, to_config_dict
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.vae import VAERunConfig

#         steps batch frames learning rate warmup starts from
LENGTHS = {
    "short": (5000, 2, 9, 2e-3, 100, ""),
    "long": (1200, 1, 41, 1e-3, 20, "runs/tiny_vae_short"),
}


def get_config(length: str = "short") -> ml_collections.ConfigDict:
    """A `relic_jax.train.vae.VAERunConfig`."""
    if length not in LENGTHS:
        raise ConfigError(f"configs/tiny_vae.py:{length}: expected one of {', '.join(LENGTHS)}")
    steps, batch, frames, learning_rate, warmup, init_from = LENGTHS[length]
    return to_config_dict(
        VAERunConfig(
            stage="vae",
            model=RelicConfig.tiny(),
            data="data/train",
            data_val="data/val",
            init_from=init_from,
            steps=steps,
            batch=batch,
            frames=frames,
            optimizer=OptimizerConfig(
                kind="muon", learning_rate=learning_rate, warmup=warmup, schedule="cosine", weight_decay=0.0
            ),
            ema=0.99,
            log_every=20,
            sample_every=steps // 10,
            save_every=steps // 10,
            l1=1.0,
            mse=1.0,
            kl=1e-5,
        )
    )
