"""Block-causal few-step generation with compressed memory, as pure functions (SPEC 4).

    state          = start(cfg, picture, text, key)
    state, latents = step(params, cfg, state, actions)

One step makes one block of latents: it denoises noise in a few evaluations, each attending to memory,
window and the block itself, then writes the block's keys and values in one evaluation at t = 0, and
moves the block that leaves the window into memory. All shapes are constant, so one compilation serves
every block of a session of any length. `write` is the second half alone: memory is a function of
(latents, actions, poses), so it can be rebuilt from a recording (`rebuild`).

`params` are the transformer's; cast their kernels first (`models.layers.cast_kernels`) for bf16 compute.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from relic_jax import rng
from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses as camera_poses
from relic_jax.config import RelicConfig
from relic_jax.diffusion import flow
from relic_jax.memory import cache as memory
from relic_jax.memory.layout import layout
from relic_jax.models.conditioning import Conditions
from relic_jax.models.module import Params
from relic_jax.stream import evaluation
from relic_jax.stream.state import Recent, State, placed, start

__all__ = ["State", "denoise", "join", "predict", "rebuild", "split", "start", "step", "video", "write"]

FRAMES_PER_LATENT = camera_poses.FRAMES_PER_LATENT


def step(
    params: Params, cfg: RelicConfig, state: State, actions: Float[Array, "B T 13"]
) -> tuple[State, Float[Array, "B L H W C"]]:
    """Generates the next block.

    Args:
      actions: one a frame, 4 frames a latent. The first block's first four belong to the picture
        (static): it has no frames before it.

    Returns:
      The state after the block, and its clean normalised latents; the very first is the picture's.
    """
    state, conditions = _advance(cfg, state, actions)
    _, latents = denoise(params, cfg, state, conditions)
    return write(params, cfg, state, latents, conditions), latents


def video(
    params: Params,
    cfg: RelicConfig,
    picture: Float[Array, "B H W C"],
    conditions: Conditions,
    key: PRNGKeyArray,
    exit_step: int | Int[Array, ""] | None = None,
) -> tuple[Float[Array, "blocks B L H W C"], Float[Array, "blocks B L H W C"]]:
    """Whole clips, streamed block by block as a session does, under given conditions (SPEC 6.1).

    Args:
      picture: latent 0 of each clip. conditions: of whole blocks, [B, blocks x L, ...].
      exit_step: see `denoise`.

    Returns:
      What the last evaluation of each block was given, and the clean latents that it predicted; `join` makes one
      video of them.
    """

    def one(state: State, conditions: Conditions) -> tuple[State, tuple[Array, Array]]:
        noisy, clean = denoise(params, cfg, state, conditions, exit_step)
        return write(params, cfg, state, clean, conditions), (noisy, clean)

    begin = start(cfg, picture, conditions.text, key, conditions.pose_weight)
    return scan_blocks(cfg, one, begin, conditions)[1]


def scan_blocks[S, T](
    cfg: RelicConfig, one: Callable[..., tuple[S, T]], state: S, conditions: Conditions, *stacked: Array
) -> tuple[S, T]:
    """The loop over the blocks of whole clips: `one(state, conditions of a block, *what is stacked of it)`."""
    blocks = [split(x, cfg.stream.block) for x in (conditions.actions, conditions.poses)]

    def body(state: S, inputs: tuple[Array, ...]) -> tuple[S, T]:
        actions, poses, *others = inputs
        return one(state, dataclasses.replace(conditions, actions=actions, poses=poses), *others)

    return jax.lax.scan(body, state, (*blocks, *stacked))


def denoise(
    params: Params,
    cfg: RelicConfig,
    state: State,
    conditions: Conditions,
    exit_step: int | Int[Array, ""] | None = None,
) -> tuple[Float[Array, "B L H W C"], Float[Array, "B L H W C"]]:
    """The block's latents from noise, in at most `len(stream.timesteps)` evaluations.

    `solver="renoise"` predicts x0 and re-noises it with fresh noise to the next level (SPEC 4);
    "euler" walks along the velocity, for a model that has not been distilled.

    Args:
      exit_step: the evaluation, counted from 0, that is the last; by default all are made.

    Returns:
      What the last evaluation was given, and the clean latents that it predicts.

    Raises:
      ValueError: there is no such evaluation.
    """
    evaluations = len(cfg.stream.timesteps)
    if isinstance(exit_step, int) and not 0 <= exit_step < evaluations:
        raise ValueError(f"exit_step={exit_step}: there are {evaluations} evaluations, counted from 0")
    batch, length = conditions.actions.shape[:2]
    shape = (batch, length, *state.picture.shape[1:])
    last = evaluations - 1 if exit_step is None else exit_step

    def noise(evaluation: int | Int[Array, ""]) -> Float[Array, "B L H W C"]:
        return jax.random.normal(rng.numbered(state.key, state.block, evaluation), shape)

    def evaluate(index: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, _ = carry
        clean, v = predict(params, cfg, state, x, index, conditions)
        level, following = _level(cfg, state, batch, index), _level(cfg, state, batch, index + 1)
        if cfg.stream.solver == "euler":
            after = flow.euler(x, v, level, following)
        else:
            after = flow.add_noise(clean, noise(index + 1), following)
        return _show_picture(cfg, state, after), x, clean

    begin = _show_picture(cfg, state, noise(0))
    _, given, clean = jax.lax.fori_loop(0, last + 1, evaluate, (begin, jnp.zeros(shape), jnp.zeros(shape)))
    return given, clean


def predict(
    params: Params,
    cfg: RelicConfig,
    state: State,
    x: Float[Array, "B L H W C"],
    index: Int[Array, ""],
    conditions: Conditions,
    *,
    checkpoint: bool = False,
) -> tuple[Float[Array, "B L H W C"], Float[Array, "B L H W C"]]:
    """Clean latents and velocity of the next block, as evaluation `index` of `denoise` predicts them from x.

    Args:
      checkpoint: recompute each layer's activations in the backward pass.
    """
    level = _level(cfg, state, x.shape[0], index)
    v, _ = evaluation.velocity(params, cfg, state, x, level, conditions, checkpoint=checkpoint)
    return _show_picture(cfg, state, flow.predict_clean(x, v, level)), v


def _level(cfg: RelicConfig, state: State, batch: int, index: Int[Array, ""]) -> Float[Array, "B L"]:
    """Noise level of each latent at evaluation `index`; after the last one it is 0. The picture is clean at all."""
    # Divided on the host: compilers may multiply by 1 / 1000 instead, and an ulp of t = 1000 is seen by sinusoids.
    level = jnp.asarray(np.array((*cfg.stream.timesteps, 0.0)) / flow.STEPS, jnp.float32)[index]
    return jnp.broadcast_to(jnp.where(_is_picture(cfg, state), 0.0, level), (batch, cfg.stream.block))


def _show_picture(cfg: RelicConfig, state: State, x: Float[Array, "B L H W C"]) -> Float[Array, "B L H W C"]:
    return jnp.where(_is_picture(cfg, state)[:, None, None, None], state.picture[:, None], x)


def _is_picture(cfg: RelicConfig, state: State) -> Bool[Array, "L"]:
    """Which latent of the next block is the picture."""
    return (state.block == 0) & (jnp.arange(cfg.stream.block) == 0)


def write(
    params: Params, cfg: RelicConfig, state: State, latents: Float[Array, "B L H W C"], conditions: Conditions
) -> State:
    """The state after a block whose clean latents are known: cache and window go on by one block."""
    lay = layout(cfg)
    clean = jnp.zeros(latents.shape[:2], jnp.float32)
    _, (k, v, plain_k) = evaluation.velocity(params, cfg, state, latents, clean, conditions, keep=True)
    leaving = state.block - lay.window_blocks
    slot = leaving % lay.window_blocks  # also the slot of the block just made
    cache = state.cache
    if lay.capacity:
        coarse = memory.coarse_tokens(cfg, lay, leaving)
        compressed = evaluation.compressed(params, cfg, state, leaving, coarse)
        cache = memory.write_memory(cache, lay, leaving, coarse, *compressed, when=leaving >= 0)
    if cache.pending_k is not None:
        cache = memory.write_pending(cache, lay, state.block, *evaluation.pooled(cfg, lay, state.block, plain_k, v))
    cache = memory.write_window(cache, lay, state.block, k, v)

    def remember(kept: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), slot * lay.block, axis=1)

    made = Recent(latents, conditions.actions, conditions.poses)
    return dataclasses.replace(
        state, cache=placed(cache), recent=jax.tree.map(remember, state.recent, made), block=state.block + 1
    )


@functools.partial(jax.jit, static_argnames="cfg")
def rebuild(
    params: Params, cfg: RelicConfig, state: State, latents: Float[Array, "B L H W C"], actions: Float[Array, "B T 13"]
) -> State:
    """The state that a fresh `state` has after showing these latents: memory from a recording.

    Args:
      latents: whole blocks from the stream's first latent on. actions: those given to `step`, one after another.
    """

    def one(state: State, inputs: tuple[Array, Array]) -> tuple[State, None]:
        x, a = inputs
        state, conditions = _advance(cfg, state, a)
        return write(params, cfg, state, x, conditions), None

    size = cfg.stream.block
    return jax.lax.scan(one, state, (split(latents, size), split(actions, FRAMES_PER_LATENT * size)))[0]


def split(x: Float[Array, "B T ..."], size: int) -> Float[Array, "blocks B {size} ..."]:
    """A sequence as its blocks of `size`, for `jax.lax.scan`."""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)


def join(x: Float[Array, "blocks B T ..."]) -> Float[Array, "B _ ..."]:
    """The inverse of `split`."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])


def _advance(cfg: RelicConfig, state: State, actions: Float[Array, "B T 13"]) -> tuple[State, Conditions]:
    """Moves the camera and makes the block's conditions."""
    rotations, positions = camera_actions.advance(
        state.rotation, state.position, actions, cfg.stream.translation_unit, cfg.stream.rotation_unit
    )
    poses = jnp.asarray(camera_poses.group(camera_poses.pose_vectors(rotations, positions)))
    conditions = Conditions(state.text, jnp.asarray(camera_poses.group(actions)), poses, state.pose_weight)
    return dataclasses.replace(state, rotation=rotations[:, -1], position=positions[:, -1]), conditions
