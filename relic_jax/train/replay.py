"""Self-forcing by replayed back-propagation (SPEC 6, RELIC 4.5): a rollout's gradient, one block at a time.

A student that learns from its own video must be differentiated through all of it, and the activations of
80 latents don't fit anywhere. But blocks touch each other through the cache alone, and the cache is detached.
So the rollout runs without gradient and keeps two things of each block: what its last evaluation was given
(`noisy`), and what that predicted (`clean`). Once a loss over the whole video has said what each latent's
gradient is, the blocks are replayed one after the other:

  1. the block's last evaluation again, this time with gradient, attending to the cache so far;
  2. its vector-Jacobian product with the block's share of the loss's gradient, added to the sum;
  3. the block's stored latents written to the cache, as the rollout did.

The result is the gradient of the whole rollout with detached cache, exactly, for one block's activations
of memory whatever the length.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from relic_jax.config import RelicConfig
from relic_jax.models.conditioning import Conditions
from relic_jax.models.module import Params
from relic_jax.stream import rollout as stream

Blocks = Float[Array, "blocks B L H W C"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rollout:
    """What a rollout leaves behind for its replay: two videos, and what they were conditioned on.

    Several of them may be stacked, on leading axes.
    """

    noisy: Float[Array, "*S blocks B L H W C"]  # given to the evaluation at which the rollout left off
    clean: Float[Array, "*S blocks B L H W C"]  # predicted by it; the very first latent is the picture
    conditions: Conditions  # of the whole video
    exit_step: Int[Array, "*S"]  # the evaluation's number, the same for all blocks

    @property
    def latents(self) -> Float[Array, "B _ H W C"]:
        """The whole video."""
        return stream.join(self.clean)


def roll_out(
    params: Params,
    cfg: RelicConfig,
    picture: Float[Array, "B H W C"],
    conditions: Conditions,
    key: PRNGKeyArray,
    exit_step: Int[Array, ""],
) -> Rollout:
    """The student's own video, made as a session makes it, each block left at evaluation `exit_step`.

    Args:
      params: the transformer's, kernels cast for compute.
      picture: latent 0. conditions: of whole blocks, [B, blocks x L, ...].
    """
    noisy, clean = stream.video(params, cfg, picture, conditions, key, exit_step)
    return Rollout(noisy, clean, conditions, exit_step)


def replay_gradient(
    params: Params, cfg: RelicConfig, rollout: Rollout, score_grads: Blocks, *, checkpoint: bool = False
) -> tuple[Params, Blocks]:
    """Gradient of sum(score_grads * clean latents of the rollout), its cache detached, by parameter.

    Args:
      params: those that made the rollout.
      score_grads: the loss's gradient with respect to each latent.
      checkpoint: recompute each layer's activations in the backward pass.

    Returns:
      The gradient in float32, and the latents as replayed: `rollout.clean`, bit for bit.
    """

    def block(
        carry: tuple[stream.State, Params], conditions: Conditions, noisy: Array, clean: Array, score_grad: Array
    ) -> tuple[tuple[stream.State, Params], Array]:
        state, total = carry
        # Keeping activations would change how the compiler fuses, and with it the last bits of the result: under
        # `jax.checkpoint` the forward pass is the rollout's own, and goes away where nobody asks for `replayed`.
        evaluate = jax.checkpoint(lambda p: _last_evaluation(p, cfg, rollout, state, noisy, conditions, checkpoint))
        replayed, vjp = jax.vjp(evaluate, params)
        (gradient,) = vjp(score_grad)
        total = jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, gradient)
        return (stream.write(params, cfg, state, clean, conditions), total), replayed

    nothing = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    stored = (rollout.noisy, rollout.clean, score_grads)
    begin = (_start(cfg, rollout), nothing)
    (_, gradient), replayed = stream.scan_blocks(cfg, block, begin, rollout.conditions, *stored)
    return gradient, replayed


def _start(cfg: RelicConfig, rollout: Rollout) -> stream.State:
    """The state that the rollout began with, but for its key: a replay draws no noise."""
    given = rollout.conditions
    return stream.start(cfg, rollout.clean[0, :, 0], given.text, jax.random.key(0), given.pose_weight)


def _last_evaluation(
    params: Params,
    cfg: RelicConfig,
    rollout: Rollout,
    state: stream.State,
    noisy: Float[Array, "B L H W C"],
    conditions: Conditions,
    checkpoint: bool,
) -> Float[Array, "B L H W C"]:
    """A block's clean latents as a function of the parameters, given the cache that it saw."""
    return stream.predict(params, cfg, state, noisy, rollout.exit_step, conditions, checkpoint=checkpoint)[0]
