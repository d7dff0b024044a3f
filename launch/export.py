"""Takes weights out of training runs.

    python -m launch.export weights --workdir=runs/tiny_vae --out=vae.safetensors [--dtype=bfloat16]
    python -m launch.export bundle --config=configs/tiny.py --dit=runs/tiny_causal --vae=runs/tiny_vae \\
        --text=data/latents/train/text.safetensors --tokenizer=data/latents/train/tokenizer.json --card=CARD.md \\
        --out=relic_jax/assets/tiny --dtype=bfloat16

`weights` writes the moving average of one run to a file. `bundle` makes the folder that `launch.generate` and
`Session.open` take; --dit, --vae and --text are workdirs or safetensors files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from absl import flags

from launch import cli
from relic_jax.config import RelicConfig
from relic_jax.errors import InputError
from relic_jax.models import bundle as bundles
from relic_jax.models import module, tokenizer, weights
from relic_jax.train import checkpoint

_OUT = flags.DEFINE_string(
    "out", None, "weights: the file to write; bundle: the folder, which must be new", required=True
)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "stored dtype")
_WORKDIR = flags.DEFINE_string("workdir", None, "weights: a training run's folder")
_PARTS = {
    part: flags.DEFINE_string(part, None, f"bundle: workdir or safetensors file of the {what}")
    for part, what in (("dit", "transformer"), ("vae", "VAE"), ("text", "text encoder"))
}
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "bundle: tokenizer.json")
_CARD = flags.DEFINE_string("card", None, "bundle: the model card, Markdown")


def write_weights(argv: Sequence[str]) -> None:
    """The moving average of one run."""
    del argv
    cli.check_writable(_OUT.value)
    step, params, config = checkpoint.read(cli.needed(_WORKDIR))
    metadata = {"format": "relic-jax", "step": str(step), "config": json.dumps(config)}
    weights.save_safetensors(_OUT.value, params, metadata, jnp.dtype(_DTYPE.value))
    print(f"{_OUT.value}: {sum(1 for _ in weights.leaves(params))} tensors of step {step} as {_DTYPE.value}")


def write_bundle(argv: Sequence[str]) -> None:
    """A whole model."""
    del argv
    cfg = cli.load_config(RelicConfig)
    card = Path(cli.needed(_CARD))
    if not card.is_file():
        raise InputError(f"--card={card}: expected a Markdown file, there is none")
    parts = {"dit": cfg.dit, "vae": cfg.vae, "text": cfg.text}
    params = {
        part: checkpoint.load_params(cli.needed(_PARTS[part]), module.abstract(bundles.PARTS[part], of))
        for part, of in parts.items()
    }
    tokens = tokenizer.load(cli.needed(_TOKENIZER))
    text = card.read_text(encoding="utf-8")
    bundles.save(_OUT.value, bundles.Bundle(cfg, params, tokens), text, jnp.dtype(_DTYPE.value))
    size = sum(file.stat().st_size for file in Path(_OUT.value).iterdir())
    print(f"{_OUT.value}: {size / 1e6:.1f} MB")


COMMANDS = {"weights": write_weights, "bundle": write_bundle}

if __name__ == "__main__":
    cli.run_commands(COMMANDS, configured={"bundle": "configs/tiny.py"})
