"""TAEHV's `taew2_1`, in the names of the author's file (github.com/madebyollin/taehv); the .safetensors has the same.

Each half there is one sequence of layers, numbered with those that have no parameters:

  encoder  0 convolution, 1 ReLU; a level: pool, convolution, memory blocks; last a convolution
  decoder  0 clamp, 1 convolution, 2 ReLU; a level: memory blocks, enlarging, grow, convolution; then ReLU, convolution

and a memory block's three convolutions are `conv.0`, `conv.2` and `conv.4`.

`lighttaew2_1` (LightX2V) has the same tensors but was trained on latents that are not normalised: converted as this
model it would give wrong colours, and nothing in the file tells.
"""

from __future__ import annotations

from relic_jax.config import TinyVAEConfig
from relic_jax.models import weights
from relic_jax.models.module import abstract
from relic_jax.models.tiny_vae import TinyVAE
from weights_convert.table import CONV, SAME, Row


def rows(cfg: TinyVAEConfig) -> list[Row]:
    table = []
    for name, _ in weights.leaves(abstract(TinyVAE, cfg)):
        half, *path, kind = name.split(".")
        layer = _layer(half, path, cfg)
        table.append(
            Row(f"{half}.{layer}.weight", name, CONV) if kind == "kernel" else Row(f"{half}.{layer}.bias", name, SAME)
        )
    return table


def _layer(half: str, path: list[str], cfg: TinyVAEConfig) -> str:
    first, length, convolution = (2, cfg.blocks + 2, 0) if half == "encoder" else (3, cfg.blocks + 3, 1)
    match path:
        case ["conv_in"]:
            return str(convolution)
        case ["conv_out"]:  # the decoder has a ReLU before it
            return str(first + len(cfg.temporal_down) * length + convolution)
        case ["levels", level, *inner]:
            return _inside(half, first + int(level) * length, inner, cfg)
    raise AssertionError(f"no name for {half} {path}")


def _inside(half: str, begin: int, path: list[str], cfg: TinyVAEConfig) -> str:
    """A layer of the level that begins at number `begin`."""
    blocks, resample, conv = (2, 0, 1) if half == "encoder" else (0, cfg.blocks + 1, cfg.blocks + 2)
    match path:
        case ["resample"]:
            return f"{begin + resample}.conv"
        case ["conv"]:
            return str(begin + conv)
        case ["blocks", block, convolution]:
            return f"{begin + blocks + int(block)}.conv.{2 * int(convolution.removeprefix('conv')) - 2}"
    raise AssertionError(f"no name for {half} {path}")
