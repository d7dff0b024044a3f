"""What a session changes from block to block, and the jitted functions that move it on.

There is one of each for all sessions of a process: a second session of a config compiles nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from relic_jax import pixels, rng
from relic_jax.config import RelicConfig, VAEConfig
from relic_jax.models import vae
from relic_jax.models.module import Params
from relic_jax.stream import rollout

_KEY = "state/key"  # the one leaf that is no plain array
# Latents that a decoder sees before those it shows: more than its convolutions reach back, 38 in Wan's VAE.
DECODER_REACH = 64

_start = partial(jax.jit, static_argnames="cfg")(rollout.start)
_step = partial(jax.jit, static_argnames="cfg", donate_argnames="state")(rollout.step)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Live:
    """The transformer's state and the decoder's."""

    state: rollout.State
    decoder: vae.VAECache


Made = tuple[Live, Float[Array, "1 L h w C"], UInt8[Array, "1 T H W 3"]]


def begin(cfg: RelicConfig, latent: Float[Array, "1 h w C"], words: Float[Array, "1 M Dt"], seed: int) -> Live:
    """A session that has shown nothing yet."""
    return Live(_start(cfg, latent, words, rng.from_seed(seed)), _decoder(cfg))


def blank(cfg: RelicConfig) -> Live:
    """A session of nothing, for the structure of its tree."""
    image = jnp.zeros((1, *cfg.latent_size, cfg.vae.latent_channels))
    return begin(cfg, image, jnp.zeros((1, cfg.text.length, cfg.text.dim)), 0)


def advance(
    params: Params, cfg: RelicConfig, lives: list[Live], actions: list[Float[np.ndarray, "T 13"]]
) -> list[Made]:
    """The next block of each of several sessions, in one step: their states, latents and frames; states are donated.

    Sessions needn't have begun together. One alone runs the program without the axis of sessions.
    """
    if len(lives) == 1:
        made = [_step(params["dit"], cfg, lives[0].state, jnp.asarray(actions[0])[None])]
    else:
        states = tuple(live.state for live in lives)
        after, latents = _step_each(params["dit"], cfg, states, jnp.asarray(np.stack(actions))[:, None])
        made = list(zip(after, latents, strict=True))
    shown = []
    for live, (state, latents) in zip(lives, made, strict=True):
        decoder, frames = _decode(params["vae"], cfg.vae, live.decoder, latents)
        shown.append((Live(state, decoder), latents, frames))
    return shown


def rebuilt(
    params: Params,
    cfg: RelicConfig,
    begun: Live,
    latents: Float[np.ndarray, "N h w C"],
    actions: Float[np.ndarray, "F 13"],
    words: Iterable[Float[Array, "1 M Dt"]],
) -> Live:
    """The session that a fresh one is after it has shown these latents: memory from a recording, no noise.

    Args:
      begun: from `begin`. words: of each block.

    A block takes two evaluations instead of five. What comes out is the streamed state up to rounding.
    """
    state, block = begun.state, cfg.stream.block
    size = rollout.FRAMES_PER_LATENT * block
    for i, of_block in enumerate(words):
        made = jnp.asarray(latents[i * block : (i + 1) * block])[None]
        moved = jnp.asarray(actions[i * size : (i + 1) * size])[None]
        state = rollout.rebuild(params["dit"], cfg, dataclasses.replace(state, text=of_block), made, moved)
    decoder, first = _decoder(cfg), max(0, len(latents) - DECODER_REACH) // block * block
    for i in range(first, len(latents), block):
        decoder, _ = _decode(params["vae"], cfg.vae, decoder, jnp.asarray(latents[i : i + block])[None])
    return Live(state, decoder)


def names(live: Live) -> tuple[list[str], Any]:
    """The path of every leaf of a session, in the tree's order, and the tree."""
    paths, tree = jax.tree.flatten_with_path(live)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths], tree


def to_tensors(live: Live) -> dict[str, Array]:
    """Every array of a session by its path."""
    tensors = dict(zip(names(live)[0], jax.tree.leaves(live), strict=True))
    return tensors | {_KEY: jax.random.key_data(tensors[_KEY])}


def from_tensors(cfg: RelicConfig, tensors: dict[str, Array]) -> Live:
    """The inverse of `to_tensors`; others' tensors may be among them."""
    paths, tree = names(blank(cfg))
    return jax.tree.unflatten(tree, [jax.random.wrap_key_data(tensors[n]) if n == _KEY else tensors[n] for n in paths])


def _decoder(cfg: RelicConfig) -> vae.VAECache:
    return vae.init_decode_cache(cfg.vae, 1, *cfg.latent_size, jnp.dtype(cfg.precision.compute))


@partial(jax.jit, static_argnames="cfg", donate_argnames="states")
def _step_each(
    params: Params, cfg: RelicConfig, states: tuple[rollout.State, ...], actions: Float[Array, "N 1 T 13"]
) -> tuple[tuple[rollout.State, ...], Float[Array, "N 1 L h w C"]]:
    tree = jax.tree.structure(states[0])

    def one(leaves: list[Array], actions: Float[Array, "1 T 13"]) -> tuple[list[Array], Array]:
        state, latents = rollout.step(params, cfg, tree.unflatten(leaves), actions)
        return jax.tree.leaves(state), latents

    # Leaf by leaf: a state of states would have one axis more than a state has.
    stacked = [jnp.stack(leaves) for leaves in zip(*map(jax.tree.leaves, states), strict=True)]
    stacked, latents = jax.vmap(one)(stacked, actions)
    return tuple(tree.unflatten([leaf[row] for leaf in stacked]) for row in range(len(states))), latents


@partial(jax.jit, static_argnums=1, donate_argnums=2, compiler_options=vae.ONEDNN)
def _decode(
    params: Params, cfg: VAEConfig, cache: vae.VAECache, latents: Float[Array, "B L h w C"]
) -> tuple[vae.VAECache, UInt8[Array, "B T H W 3"]]:
    dtype = jax.tree.leaves(cache.history)[0].dtype
    cache, frames = vae.decode(params, cfg, cache, latents.astype(dtype))
    return cache, pixels.to_uint8(frames)
