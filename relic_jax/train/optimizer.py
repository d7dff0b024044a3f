"""AdamW or Muon with warm-up, the global-norm clip, and the moving average of the weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax import contrib

from relic_jax.models.module import Params
from relic_jax.train.stage import TrainConfig


def make(cfg: TrainConfig, decay_mask: Any) -> optax.GradientTransformation:
    """Global-norm clip, then AdamW or Muon (optax) under `schedule(cfg)`.

    Muon orthogonalises the momentum of every matrix (leaf `kernel`), with updates of the size of Adam's
    (`consistent_rms`); all else gets Adam. The tiny VAE needs it: under Adam alone it stays on a plateau.

    Args:
      cfg: optimizer, learning rate, betas, weight decay, clip.
      decay_mask: tree of bool like the parameters, True where weight decay applies.
    """
    if cfg.optimizer == "adamw":
        update = optax.adamw(schedule(cfg), *cfg.betas, weight_decay=cfg.weight_decay, mask=decay_mask)
    else:
        update = contrib.muon(
            schedule(cfg),
            consistent_rms=0.2,
            weight_decay=cfg.weight_decay,
            weight_decay_mask=decay_mask,
            adam_b1=cfg.betas[0],
            adam_b2=cfg.betas[1],
            muon_weight_dimension_numbers=_matrices_of_kernels,
        )
    return optax.chain(optax.clip_by_global_norm(cfg.clip), update)


def _matrices_of_kernels(params: Params) -> Any:
    """How Muon sees each kernel as a matrix; None for other leaves.

    Linear layers are [in, out], stacked ones [layers, in, out] and so a matrix each; convolutions [..., in, out] are
    one matrix of their whole window.
    """

    def numbers(path: tuple, leaf: Array) -> contrib.MuonDimensionNumbers | None:
        if path[-1].key != "kernel":
            return None
        last = leaf.ndim - 1
        return contrib.MuonDimensionNumbers(1 if leaf.ndim == 3 else tuple(range(last)), last)

    return jax.tree_util.tree_map_with_path(numbers, params)


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
