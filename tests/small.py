"""Models small enough for any test, with random weights."""

import jax
import jax.numpy as jnp
import numpy as np

from relic_jax.config import RelicConfig
from relic_jax.models import bundle, module, tokenizer

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
