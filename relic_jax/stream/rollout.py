"""Block-causal few-step generation with compressed memory, as pure functions (SPEC 4).

    state          = start(params, cfg, image_latent, text, key)
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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from relic_jax.camera import actions as camera_actions
from relic_jax.camera import poses as camera_poses
from relic_jax.config import RelicConfig
from relic_jax.diffusion import flow
from relic_jax.memory import cache as memory
from relic_jax.memory import compress
from relic_jax.memory.layout import Layout, layout
from relic_jax.models import rope
from relic_jax.models.dit import DiT, grid_angles, patchify, unpatchify
from relic_jax.models.module import Params, bind
from relic_jax.ops.attention import attention, merge
from relic_jax.parallel.rules import constrain

FRAMES_PER_LATENT = camera_poses.FRAMES_PER_LATENT


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Block:
    """One block of the stream: clean latents and what conditioned them."""

    latents: Float[Array, "B L H W C"]
    actions: Float[Array, "B L 52"]
    poses: Float[Array, "B L 48"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Everything a session is, between two blocks."""

    cache: memory.Cache
    recent: Block  # the window's blocks; a slot each, used in turn
    image: Float[Array, "B H W C"]
    text: Float[Array, "B M D"]  # embedded
    rotation: Float[Array, "B 3 3"]  # the last frame's pose
    position: Float[Array, "B 3"]
    pose_weight: Float[Array, "B"]  # 0 withholds the poses from the model
    key: PRNGKeyArray
    block: Int[Array, ""]  # the number of the next block


def start(
    params: Params,
    cfg: RelicConfig,
    image: Float[Array, "B H W C"],
    text: Float[Array, "B M Dt"],
    key: PRNGKeyArray,
    pose_weight: Float[Array, "B"] | None = None,
) -> State:
    """A session that has shown nothing yet.

    Args:
      params: the transformer's.
      image: the picture's normalised latent, latent frame 0 of the stream.
      text: text encoder states, zero-padded to `dit.text_len`.
      key: all noise of the session comes from it and the block's number.
      pose_weight: 0 to withhold the camera poses; 1 by default.
    """
    batch, lay = image.shape[0], layout(cfg)
    latents = (cfg.memory.window - cfg.stream.block,)

    def recent(*shape: int) -> Array:
        return jnp.zeros((batch, *latents, *shape), jnp.float32)

    return State(
        cache=_placed(memory.init(cfg, lay, batch)),
        recent=Block(recent(*image.shape[1:]), recent(52), recent(48)),
        image=image.astype(jnp.float32),
        text=bind(DiT, cfg.dit, params).embed_text(text),
        rotation=jnp.broadcast_to(jnp.eye(3, dtype=jnp.float32), (batch, 3, 3)),
        position=jnp.zeros((batch, 3), jnp.float32),
        pose_weight=jnp.ones((batch,), jnp.float32) if pose_weight is None else pose_weight,
        key=key,
        block=jnp.zeros((), jnp.int32),
    )


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
    _, latents = denoise(params, cfg, state, *conditions)
    return write(params, cfg, state, Block(latents, *conditions)), latents


def denoise(
    params: Params,
    cfg: RelicConfig,
    state: State,
    actions: Float[Array, "B L 52"],
    poses: Float[Array, "B L 48"],
    exit_step: int | Int[Array, ""] | None = None,
) -> tuple[Float[Array, "B L H W C"], Float[Array, "B L H W C"]]:
    """The block's latents from noise, in at most `len(stream.timesteps)` evaluations.

    `solver="renoise"` predicts x0 and re-noises it with fresh noise to the next level (SPEC 4);
    "euler" walks along the velocity, for a model that has not been distilled.

    Args:
      exit_step: the evaluation, counted from 0, that is the last; by default all are made.

    Returns:
      What the last evaluation was given, and the clean latents that it predicts.
    """
    batch, length = actions.shape[0], cfg.stream.block
    shape = (batch, length, *state.image.shape[1:])
    key = jax.random.fold_in(state.key, state.block)
    last = len(cfg.stream.timesteps) - 1 if exit_step is None else exit_step

    def evaluate(index: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, _ = carry
        clean, v = predict(params, cfg, state, x, index, actions, poses)
        level, following = _level(cfg, state, batch, index), _level(cfg, state, batch, index + 1)
        if cfg.stream.solver == "euler":
            after = flow.euler(x, v, level, following)
        else:
            noise = jax.random.normal(jax.random.fold_in(key, index + 1), shape)
            after = flow.add_noise(clean, noise, following)
        return _show_picture(cfg, state, after), x, clean

    noise = _show_picture(cfg, state, jax.random.normal(jax.random.fold_in(key, 0), shape))
    _, given, clean = jax.lax.fori_loop(0, last + 1, evaluate, (noise, jnp.zeros(shape), jnp.zeros(shape)))
    return given, clean


def predict(
    params: Params,
    cfg: RelicConfig,
    state: State,
    x: Float[Array, "B L H W C"],
    index: Int[Array, ""],
    actions: Float[Array, "B L 52"],
    poses: Float[Array, "B L 48"],
    *,
    checkpoint: bool = False,
) -> tuple[Float[Array, "B L H W C"], Float[Array, "B L H W C"]]:
    """Clean latents and velocity of the next block, as evaluation `index` of `denoise` predicts them from x.

    Args:
      checkpoint: recompute each layer's activations in the backward pass.
    """
    level = _level(cfg, state, x.shape[0], index)
    v, _ = _evaluate(params, cfg, layout(cfg), state, x, level, actions, poses, checkpoint=checkpoint)
    return _show_picture(cfg, state, flow.predict_clean(x, v, level)), v


def _level(cfg: RelicConfig, state: State, batch: int, index: Int[Array, ""]) -> Float[Array, "B L"]:
    """Noise level of each latent at evaluation `index`; after the last one it is 0. The picture is clean at all."""
    # Divided on the host: compilers may multiply by 1 / 1000 instead, and an ulp of t = 1000 is seen by sinusoids.
    level = jnp.asarray(np.array((*cfg.stream.timesteps, 0.0)) / flow.STEPS, jnp.float32)[index]
    return jnp.broadcast_to(jnp.where(_picture(cfg, state), 0.0, level), (batch, cfg.stream.block))


def _show_picture(cfg: RelicConfig, state: State, x: Float[Array, "B L H W C"]) -> Float[Array, "B L H W C"]:
    return jnp.where(_picture(cfg, state)[:, None, None, None], state.image[:, None], x)


def _picture(cfg: RelicConfig, state: State) -> Bool[Array, "L"]:
    """Which latent of the next block is the picture."""
    return (state.block == 0) & (jnp.arange(cfg.stream.block) == 0)


def write(params: Params, cfg: RelicConfig, state: State, block: Block) -> State:
    """The state after a block whose clean latents are known: cache and window go on by one block."""
    lay = layout(cfg)
    clean = jnp.zeros(block.latents.shape[:2], jnp.float32)
    _, (k, v, plain_k) = _evaluate(params, cfg, lay, state, block.latents, clean, block.actions, block.poses, keep=True)
    leaving = state.block - lay.window_blocks
    slot = leaving % lay.window_blocks  # also the slot of the block just made
    cache = state.cache
    if lay.capacity:
        coarse = memory.coarse_tokens(cfg, lay, leaving)
        compressed = _compressed(params, cfg, lay, state, leaving, coarse)
        cache = memory.write_memory(cache, lay, leaving, coarse, *compressed, when=leaving >= 0)
    if cache.pending_k is not None:
        cache = memory.write_pending(cache, lay, state.block, *_pooled(cfg, lay, state.block, plain_k, v))
    cache = memory.write_window(cache, lay, state.block, k, v)

    def remember(kept: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), slot * lay.block, axis=1)

    return dataclasses.replace(
        state, cache=_placed(cache), recent=jax.tree.map(remember, state.recent, block), block=state.block + 1
    )


def _placed(cache: memory.Cache) -> memory.Cache:
    """On a mesh: samples and heads divided, whatever a loop over blocks begins with."""

    def place(leaf: Float[Array, "Z B *S K D"]) -> Float[Array, "Z B *S K D"]:
        return constrain(leaf, "layers", "batch", *(None,) * (leaf.ndim - 4), "stored_heads")

    return jax.tree.map(place, cache)


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
        return write(params, cfg, state, Block(x, *conditions)), None

    size = cfg.stream.block
    return jax.lax.scan(one, state, (split(latents, size), split(actions, FRAMES_PER_LATENT * size)))[0]


def split(x: Float[Array, "B T ..."], size: int) -> Float[Array, "blocks B {size} ..."]:
    """A sequence as its blocks of `size`, for `jax.lax.scan`."""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)


def join(x: Float[Array, "blocks B T ..."]) -> Float[Array, "B _ ..."]:
    """The inverse of `split`."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])


def _advance(
    cfg: RelicConfig, state: State, actions: Float[Array, "B T 13"]
) -> tuple[State, tuple[Float[Array, "B L 52"], Float[Array, "B L 48"]]]:
    """Moves the camera and makes the block's conditioning features."""
    rotations, positions = camera_actions.advance(
        state.rotation, state.position, actions, cfg.stream.translation_unit, cfg.stream.rotation_unit
    )
    poses = camera_poses.group(camera_poses.pose_vectors(rotations, positions))
    state = dataclasses.replace(state, rotation=rotations[:, -1], position=positions[:, -1])
    return state, (camera_poses.group(actions), poses)


def _attend_to_past(
    lay: Layout, state: State, angles: rope.Angles, own: Int[Array, "2 2"] | None, past: Int[Array, "2 2"], keep: bool
) -> Any:
    """`attend` for tokens that see part of the cache, and themselves up to `own`."""

    def attend(q: Array, k: Array, v: Array, cached: tuple[Array, Array]) -> tuple[Array, Any]:
        rotated, plain = rope.rotate(k, angles), k
        q = rope.rotate(q, angles)
        parts = [attention(q, rotated, v, kv_ranges=own)]
        if lay.size:
            parts.append(attention(q, *cached, kv_ranges=past))
        return merge(parts)[0], (rotated, v, plain) if keep else None

    return attend


def _evaluate(
    params: Params,
    cfg: RelicConfig,
    lay: Layout,
    state: State,
    x: Float[Array, "B L H W C"],
    level: Float[Array, "B L"],
    actions: Float[Array, "B L 52"],
    poses: Float[Array, "B L 48"],
    keep: bool = False,
    checkpoint: bool = False,
) -> tuple[Float[Array, "B L H W C"], Any]:
    """Velocity of the next block given memory and window; with `keep` also its keys (rotated), values, plain keys."""
    model = bind(DiT, cfg.dit, params)
    rows, columns = lay.grid
    positions = state.block * lay.block + jnp.arange(lay.block)
    leaving = jnp.maximum(state.block - lay.window_blocks, 0)
    past = jnp.stack([memory.memory_range(lay, leaving), memory.window_range(lay, state.block)])
    velocity, kept = model(
        patchify(x, cfg.dit.patch),
        level * flow.STEPS,
        state.text,
        *model.conditioner(actions, poses, state.pose_weight),
        spread=lambda a: jnp.repeat(a, lay.tokens_per_latent, axis=1),
        attend=_attend_to_past(lay, state, grid_angles(cfg.dit, positions, rows, columns), None, past, keep),
        cache=(state.cache.k, state.cache.v),
        checkpoint=checkpoint,
    )
    return unpatchify(velocity, cfg.dit.patch, lay.block, rows, columns), kept


def _compressed(
    params: Params, cfg: RelicConfig, lay: Layout, state: State, block: Int[Array, ""], coarse: memory.Coarse
) -> tuple[Array, Array]:
    """Keys and values [Z B P K D] with which a block that leaves the window enters memory."""
    if cfg.memory.mode == "full":  # nothing is pooled: a fresh evaluation would give the same keys
        return memory.read_window(state.cache, lay, block)
    if cfg.memory.compress == "kv":
        return memory.read_pending(state.cache, lay, block)
    slot = (block % lay.window_blocks) * lay.block
    kept = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, slot, lay.block, axis=1), state.recent)
    model = bind(DiT, cfg.dit, params)
    angles = rope.join(_temporal(cfg, lay, block, coarse), coarse.spatial)
    none = jnp.zeros((2,), jnp.int32)
    _, (k, v, _) = model(
        compress.latent_bank(kept.latents, cfg.dit.patch)[:, coarse.source],
        jnp.zeros(kept.latents.shape[:2], jnp.float32),
        state.text,
        *model.conditioner(kept.actions, kept.poses, state.pose_weight),
        spread=lambda a: a[:, coarse.latent],
        attend=_attend_to_past(
            lay,
            state,
            angles,
            jnp.stack([jnp.stack([none[0], coarse.count]), none]),
            jnp.stack([memory.memory_range(lay, jnp.maximum(block, 0)), none]),
            keep=True,
        ),
        cache=(state.cache.k, state.cache.v),
    )
    return k, v


def _pooled(
    cfg: RelicConfig, lay: Layout, block: Int[Array, ""], k: Float[Array, "Z B N K D"], v: Float[Array, "Z B N K D"]
) -> tuple[Array, Array]:
    """A block's keys (plain) and values pooled for memory; keys are rotated after pooling, which would cancel them."""
    coarse = memory.coarse_tokens(cfg, lay, block)
    angles = rope.join(_temporal(cfg, lay, block, coarse), coarse.spatial)

    def pool(x: Array) -> Array:
        return compress.token_bank(x, lay.grid)[:, coarse.source]

    return jax.vmap(lambda x: rope.rotate(pool(x), angles))(k), jax.vmap(pool)(v)


def _temporal(cfg: RelicConfig, lay: Layout, block: Int[Array, ""], coarse: memory.Coarse) -> rope.Angles:
    positions = jnp.maximum(block, 0) * lay.block + coarse.latent
    return rope.temporal_angles(cfg.dit, positions)
