"""Models small enough for any test, with random weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from relic_jax.config import DiTConfig, MemoryConfig, RelicConfig, TextConfig, VAEConfig, VideoConfig
from relic_jax.models import bundle, module, tokenizer

SMALLEST = RelicConfig(
    name="smallest",
    video=VideoConfig(height=32, width=48),
    dit=DiTConfig(dim=32, ffn_dim=48, heads=4, layers=1, freq_dim=16, text_len=8, text_dim=16, cond_dim=16),
    vae=VAEConfig(base_dim=8, multipliers=(1, 2, 2), res_blocks=1, temporal_down=(True, True), patch_size=2),
    text=TextConfig(vocab=128, dim=16, attention_dim=16, ffn_dim=24, heads=2, layers=1, length=8),
    memory=MemoryConfig(horizon=44),
    precision=RelicConfig.tiny().precision,
)
CAPTIONS = ["a room with red walls and a grey floor", "two blue boxes in a small courtyard under an overcast sky"]


def frames_of(latents: int) -> int:
    """Video frames of so many latents, 4 to each but the first."""
    return 4 * (latents - 1) + 1


def random_params(cfg: RelicConfig, scale: float = 0.05) -> module.Params:
    """Weights of all parts, filled on the host: compiling each module's own initialisers takes half a minute."""
    rng = np.random.default_rng(0)
    shapes = {part: module.abstract(kind, getattr(cfg, part)) for part, kind in bundle.PARTS.items()}
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(scale=scale, size=leaf.shape), leaf.dtype), shapes)


def random_bundle(cfg: RelicConfig) -> bundle.Bundle:
    """A model that runs and knows nothing."""
    return bundle.Bundle(cfg, random_params(cfg), tokenizer.train(CAPTIONS * 4, cfg.text.vocab))


def write_bundle(folder: Path, cfg: RelicConfig) -> Path:
    """A bundle of random weights in a new folder, and `<folder>.py`, a file for --config that describes it."""
    bundle.save(folder, random_bundle(cfg), "")
    config = folder.with_suffix(".py")
    config.write_text(
        "import json\nimport ml_collections\n\n\ndef get_config():\n"
        f"    return ml_collections.ConfigDict(json.load(open({str(folder / 'config.json')!r})))\n"
    )
    return config
