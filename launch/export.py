"""Writes a training run's EMA weights to a safetensors file.

python -m launch.export --workdir=runs/tiny_vae --out=relic_jax/assets/tiny/vae.safetensors --dtype=bfloat16
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import jax.numpy as jnp
from absl import flags

from launch import cli
from relic_jax.models import weights
from relic_jax.train import checkpoint

_WORKDIR = flags.DEFINE_string("workdir", None, "a training run's folder", required=True)
_OUT = flags.DEFINE_string("out", None, "the file to write, ending in .safetensors", required=True)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "stored dtype")


def main(argv: Sequence[str]) -> None:
    del argv
    cli.check_writable(_OUT.value)
    step, params, config = checkpoint.read(_WORKDIR.value)
    metadata = {"format": "relic-jax", "step": str(step), "config": json.dumps(config)}
    weights.save_safetensors(_OUT.value, params, metadata, jnp.dtype(_DTYPE.value))
    print(f"{_OUT.value}: {sum(1 for _ in weights.leaves(params))} tensors of step {step} as {_DTYPE.value}")


if __name__ == "__main__":
    cli.run(main)
