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
from relic_jax.models.dit import DiT
from relic_jax.models.module import Params, bind
from relic_jax.stream import rollout as stream
from relic_jax.train.clips import Conditions

Blocks = Float[Array, "blocks B L H W C"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rollout:
    """What a rollout leaves behind for its replay: two videos, and what they were conditioned on.

    Several of them may be stacked, on leading axes.
    """

    noisy: Float[Array, "*S blocks B L H W C"]  # given to the evaluation at which the rollout left off
    clean: Float[Array, "*S blocks B L H W C"]  # predicted by it; the very first latent is the picture
    actions: Float[Array, "*S blocks B L 52"]
    poses: Float[Array, "*S blocks B L 48"]
    text: Float[Array, "*S B M Dt"]
    pose_weight: Float[Array, "*S B"]
    exit_step: Int[Array, "*S"]  # the evaluation's number, the same for all blocks

    @property
    def latents(self) -> Float[Array, "B _ H W C"]:
        """The whole video."""
        return stream.join(self.clean)

    @property
    def given(self) -> Conditions:
        """The conditions of the whole video."""
        return Conditions(self.text, stream.join(self.actions), stream.join(self.poses), self.pose_weight)


def roll_out(
    params: Params,
    cfg: RelicConfig,
    image: Float[Array, "B H W C"],
    given: Conditions,
    key: PRNGKeyArray,
    exit_step: Int[Array, ""],
) -> Rollout:
    """The student's own video, made as a session makes it, each block left at evaluation `exit_step`.

    Args:
      params: the transformer's, kernels cast for compute.
      image: latent 0. given: conditions of whole blocks, [B, blocks x L, ...].
    """
    start = stream.start(params, cfg, image, given.text, key, given.pose_weight)
    actions, poses = (stream.split(x, cfg.stream.block) for x in (given.actions, given.poses))

    def block(state: stream.State, conditions: tuple[Array, Array]) -> tuple[stream.State, tuple[Array, Array]]:
        noisy, clean = stream.denoise(params, cfg, state, *conditions, exit_step)
        return stream.write(params, cfg, state, stream.Block(clean, *conditions)), (noisy, clean)

    _, (noisy, clean) = jax.lax.scan(block, start, (actions, poses))
    return Rollout(noisy, clean, actions, poses, given.text, given.pose_weight, exit_step)


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

    def block(carry: tuple[stream.State, Params], inputs: tuple) -> tuple[tuple[stream.State, Params], Array]:
        state, total = carry
        noisy, clean, actions, poses, score_grad = inputs
        # Keeping activations would change how the compiler fuses, and with it the last bits of the result: under
        # `jax.checkpoint` the forward pass is the rollout's own, and goes away where nobody asks for `replayed`.
        evaluate = jax.checkpoint(lambda p: _last_evaluation(p, cfg, rollout, state, noisy, actions, poses, checkpoint))
        replayed, vjp = jax.vjp(evaluate, params)
        (gradient,) = vjp(score_grad)
        total = jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, gradient)
        state = stream.write(params, cfg, state, stream.Block(clean, actions, poses))
        return (state, total), replayed

    nothing = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    inputs = (rollout.noisy, rollout.clean, rollout.actions, rollout.poses, score_grads)
    (_, gradient), replayed = jax.lax.scan(block, (_start(params, cfg, rollout), nothing), inputs)
    return gradient, replayed


def monolithic_gradient(
    params: Params, cfg: RelicConfig, rollout: Rollout, score_grads: Blocks, *, checkpoint: bool = False
) -> tuple[Params, Blocks]:
    """What `replay_gradient` computes, by differentiating all blocks at once: memory grows with their number.

    For comparison; nothing trains with it.
    """

    def video(p: Params) -> Blocks:
        def block(state: stream.State, inputs: tuple) -> tuple[stream.State, Array]:
            noisy, clean, actions, poses = inputs
            replayed = _last_evaluation(p, cfg, rollout, state, noisy, actions, poses, checkpoint)
            return stream.write(params, cfg, state, stream.Block(clean, actions, poses)), replayed

        inputs = (rollout.noisy, rollout.clean, rollout.actions, rollout.poses)
        return jax.lax.scan(block, _start(params, cfg, rollout), inputs)[1]

    replayed, vjp = jax.vjp(video, params)
    (gradient,) = vjp(score_grads)
    return jax.tree.map(lambda g: g.astype(jnp.float32), gradient), replayed


def _start(params: Params, cfg: RelicConfig, rollout: Rollout) -> stream.State:
    """The state that the rollout began with, but for its key: a replay draws no noise."""
    image = rollout.clean[0, :, 0]
    return stream.start(params, cfg, image, rollout.text, jax.random.key(0), rollout.pose_weight)


def _last_evaluation(
    params: Params,
    cfg: RelicConfig,
    rollout: Rollout,
    state: stream.State,
    noisy: Float[Array, "B L H W C"],
    actions: Float[Array, "B L 52"],
    poses: Float[Array, "B L 48"],
    checkpoint: bool,
) -> Float[Array, "B L H W C"]:
    """A block's clean latents as a function of the parameters, given the cache that it saw."""
    state = dataclasses.replace(state, text=bind(DiT, cfg.dit, params).embed_text(rollout.text))
    clean, _ = stream.predict(params, cfg, state, noisy, rollout.exit_step, actions, poses, checkpoint=checkpoint)
    return clean
