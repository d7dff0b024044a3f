"""Take Wan 2.1's own weights, make a RELIC of them, and ask whether the 14B model fits four H100.

    python -m examples.wan_weights SOURCE DESTINATION   # of Wan2.1-T2V-1.3B, in Wan's or in diffusers' form

The converted model has RELIC's action and pose paths beside Wan's own layers. They begin at zero, so at first it *is*
Wan: whatever the keys, the velocity doesn't change. The plan needs no GPU, but JAX's CUDA plugin (extra `cuda12`).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from launch import plan_report
from relic_jax import RelicConfig
from relic_jax.config import DiTConfig
from relic_jax.errors import InputError
from relic_jax.models import module
from relic_jax.models.conditioning import Conditions
from relic_jax.models.dit import DiT
from relic_jax.models.module import Params
from relic_jax.parallel import hardware
from relic_jax.parallel.mesh import MeshShape
from relic_jax.train import checkpoint
from weights_convert.tables import MODELS
from weights_convert.to_relic import to_relic


def convert(source: Path, destination: Path, model: str = "wan-t2v-1.3b", dit: DiTConfig | None = None) -> Params:
    """The transformer's weights. `dit` is for models of another size than the published one."""
    of = MODELS[model] if dit is None else dataclasses.replace(MODELS[model], config=dit)
    if not destination.exists():
        done = to_relic(model, source, destination, model=of, verify=True)
        print(f"{done.converted} tensors of Wan's, {done.initialised} of RELIC's own, from the {done.layout} layout")
    return checkpoint.load_params(str(destination), module.abstract(DiT, of.config))


def largest_change_by_keys(params: Params, dit: DiTConfig) -> float:
    """How much an action and a pose change the velocity of noise: 0 until something has been trained."""
    model, latents = module.bind(DiT, dit, params), jax.random.normal(jax.random.key(0), (1, 2, 8, 8, 16))
    t, text = jnp.array([[0.0, 1000.0]]), jnp.zeros((1, dit.text_len, dit.text_dim))

    def velocity(size: float) -> jax.Array:
        given = Conditions.of(text, jnp.full((1, 2, 52), size), jnp.full((1, 2, 48), size))
        return model.video(latents, t, given)

    return float(jnp.abs(velocity(1.0) - velocity(0.0)).max())


def plan(cfg: RelicConfig, mesh: str = "seq=4", device: str = "h100", devices: list | None = None) -> str:
    """What compiling a streamed block for GPUs that aren't here says of memory and time."""
    gpu, shape = hardware.find(device), MeshShape.parse(mesh)
    devices = devices or hardware.absent_devices(gpu, shape)
    return plan_report.table(plan_report.measure(cfg, "stream", gpu, shape, devices, None), gpu)


if __name__ == "__main__":
    try:
        weights = convert(*map(Path, sys.argv[1:3]))
        print("an action changes the velocity by", largest_change_by_keys(weights, RelicConfig.wan_1_3b().dit))
        print(plan(RelicConfig.wan_14b()))
    except (InputError, TypeError) as error:
        sys.exit(f"error: {error}")
