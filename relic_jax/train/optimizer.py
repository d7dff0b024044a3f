"""AdamW or Muon with warm-up, the global-norm clip, and the moving average of the weights."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax import contrib

from relic_jax.config import ConfigError, above, at_least, one_of, within
from relic_jax.models.module import Params
from relic_jax.train.abstract import Leaf

norm = optax.tree.norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How a gradient becomes an update.

    Fields:
      kind: Muon orthogonalises the momentum of every matrix (leaf `kernel`), with updates of the size of Adam's; all
        else gets Adam. The tiny VAE needs it: under Adam alone it stays on a plateau.
      warmup: steps from a rate of 0 up to `learning_rate`.
      schedule: after that the rate is held, or falls along half a cosine to 0 at the last step.
      clip: global norm of the gradient.
    """

    learning_rate: float
    kind: Literal["adamw", "muon"] = "adamw"
    warmup: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        one_of(self, "optimizer", "kind", ("adamw", "muon"))
        one_of(self, "optimizer", "schedule", ("constant", "cosine"))
        above(self, "optimizer", 0, "learning_rate", "clip")
        at_least(self, "optimizer", 0, "warmup")
        within(self, "optimizer", 0, 1, "weight_decay")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optimizer.betas={self.betas} must be two numbers in [0, 1)")


def make(cfg: OptimizerConfig, steps: int, params: Any) -> optax.GradientTransformation:
    """Global-norm clip, then AdamW or Muon (optax) under `schedule`.

    Args:
      steps: of the whole run.
      params: their shapes with named axes (`abstract.Leaf`). Weight decay is for matrices, not for vectors.
    """
    decayed = jax.tree.map(_is_matrix, params)
    if cfg.kind == "adamw":
        update = optax.adamw(schedule(cfg, steps), *cfg.betas, weight_decay=cfg.weight_decay, mask=decayed)
    else:
        update = contrib.muon(
            schedule(cfg, steps),
            consistent_rms=0.2,
            weight_decay=cfg.weight_decay,
            weight_decay_mask=decayed,
            adam_b1=cfg.betas[0],
            adam_b2=cfg.betas[1],
            muon_weight_dimension_numbers=_matrices_of_kernels,
        )
    return optax.chain(optax.clip_by_global_norm(cfg.clip), update)


def _is_matrix(leaf: Leaf) -> bool:
    return sum(axis != "layers" for axis in leaf.axes) > 1


def _matrices_of_kernels(params: Any) -> Any:
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


def schedule(cfg: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then the learning rate held, or down a half cosine to 0 at the last step."""
    warmup = optax.linear_schedule(0.0, cfg.learning_rate, max(cfg.warmup, 1))
    if cfg.schedule == "constant":
        after = optax.constant_schedule(cfg.learning_rate)
    else:
        after = optax.cosine_decay_schedule(cfg.learning_rate, max(steps - cfg.warmup, 1))
    # The count is 0 at the first update: starting at 1 spares a step of learning rate 0.
    joined = optax.join_schedules([warmup, after], [cfg.warmup])
    return lambda count: joined(count + (1 if cfg.warmup else 0))


def apply(
    optimizer: optax.GradientTransformation, gradient: Params, opt_state: Any, params: Params
) -> tuple[Params, Any]:
    """Parameters and optimizer state after one update."""
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return cast(Params, optax.apply_updates(params, updates)), opt_state


def average(ema: Params, params: Params, step: Int[Array, ""], decay: float, start: int = 0) -> Params:
    """The exponential moving average after update number `step` (from 0).

    Args:
      start: before this step the average is the weights themselves. Without it the decay rises as
        (1 + step) / (10 + step) up to `decay`, so that a random start is soon forgotten.
    """
    kept: Float[Array, ""]
    kept = jnp.where(step < start, 0.0, decay) if start else jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: old + (1 - kept) * (new - old), ema, params)
