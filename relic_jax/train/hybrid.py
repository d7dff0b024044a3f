"""Hybrid forcing (SPEC 5): the velocity of noisy blocks that remember clean ones, for either kind of compression."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from relic_jax.config import RelicConfig
from relic_jax.models.module import Params
from relic_jax.train import packed, two_pass


def noisy_velocity(params: Params, cfg: RelicConfig, *inputs: Any, **options: Any) -> Float[Array, "B W_ H W C"]:
    """One packed pass where memory pools latents or nothing, two where it pools keys and values.

    Arguments are those of `packed.noisy_velocity`.
    """
    pools_keys = cfg.memory.mode == "relic" and cfg.memory.compress == "kv"
    return (two_pass if pools_keys else packed).noisy_velocity(params, cfg, *inputs, **options)
