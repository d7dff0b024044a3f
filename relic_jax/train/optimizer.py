"""AdamW with warm-up, the global-norm clip, and the moving average of the weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from relic_jax.models.module import Params
from relic_jax.train.stage import TrainConfig


def make(cfg: TrainConfig, decay_mask: Any) -> optax.GradientTransformation:
    """Global-norm clip, then AdamW (optax) under `schedule(cfg)`.

    Args:
      cfg: learning rate, betas, weight decay, clip.
      decay_mask: tree of bool like the parameters, True where weight decay applies.
    """
    return optax.chain(
        optax.clip_by_global_norm(cfg.clip),
        optax.adamw(schedule(cfg), *cfg.betas, weight_decay=cfg.weight_decay, mask=decay_mask),
    )


def schedule(cfg: TrainConfig) -> optax.Schedule:
    """Linear warm-up from 0, then the learning rate held, or down a half cosine to 0 at the last step."""
    warmup = optax.linear_schedule(0.0, cfg.learning_rate, max(cfg.warmup, 1))
    if cfg.schedule == "constant":
        rest = optax.constant_schedule(cfg.learning_rate)
    else:
        rest = optax.cosine_decay_schedule(cfg.learning_rate, max(cfg.steps - cfg.warmup, 1))
    # The count is 0 at the first update: starting at 1 spares a step of learning rate 0.
    joined = optax.join_schedules([warmup, rest], [cfg.warmup])
    return lambda count: joined(count + (1 if cfg.warmup else 0))


def matrices(logical_axes: Any) -> Any:
    """A decay mask from `models.module.logical_axes`: True for what has two axes or more besides `layers`."""
    return jax.tree.map(
        lambda axes: sum(axis != "layers" for axis in axes) > 1, logical_axes, is_leaf=lambda x: isinstance(x, tuple)
    )


def average(ema: Params, params: Params, step: Int[Array, ""], decay: float) -> Params:
    """The exponential moving average after update number `step` (from 0).

    The decay rises as (1 + step) / (10 + step) up to `decay`, so that the random start is soon forgotten.
    """
    kept: Float[Array, ""] = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: old + (1 - kept) * (new - old), ema, params)
