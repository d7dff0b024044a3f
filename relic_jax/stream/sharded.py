"""Streaming on a mesh: where weights and state lie, and the step that keeps them there.

    mesh = parallel.mesh.make(MeshShape.parse("seq=4"))
    with jax.set_mesh(mesh):
        params = place(mesh, cfg, params)
        state = start(mesh, cfg, batch)(picture, text, key)
        state, latents = step(mesh, cfg, batch)(params, state, actions)

These are `rollout.start` and `rollout.step`, jitted. Weights are copied to every device of `seq` and `data`; the
cache is divided by heads over `seq` and `tensor`, so that a device attends to what it stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from relic_jax.config import RelicConfig
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.parallel.exchange import check_heads
from relic_jax.parallel.rules import SERVING, check_batch, parameters, shardings
from relic_jax.stream import rollout


def weight_specs(mesh: Mesh, cfg: RelicConfig) -> Params:
    """The partition of every weight of the transformer.

    Raises:
      InputError: the mesh can't divide them; names the first.
    """
    check_heads(cfg.dit.heads, mesh.shape)
    return parameters(module.logical_axes(DiT, cfg.dit), module.abstract(DiT, cfg.dit), SERVING, mesh.shape)


def place(mesh: Mesh, cfg: RelicConfig, params: Params) -> Params:
    """The transformer's weights on the mesh, matrices in the compute precision."""
    return jax.device_put(cast_kernels(params, cfg.precision.compute), shardings(mesh, weight_specs(mesh, cfg)))


def state_spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
    """The partition of a leaf of `rollout.State`: its samples, and in the cache [layers, B, ..., K, d] its heads."""
    field = path[0].name
    if field == "cache":
        return SERVING.spec(("layers", "batch", *(None,) * (leaf.ndim - 4), "stored_heads", None))
    return PartitionSpec() if field in ("key", "block") else SERVING.spec(("batch",))


def place_state(mesh: Mesh, state: rollout.State) -> rollout.State:
    """A copy of a state, on the mesh: `step` donates it, and the given one may live on."""

    def put(path: tuple, leaf: Array) -> Array:
        return jax.device_put(jnp.copy(leaf), NamedSharding(mesh, state_spec(path, leaf)))

    return jax.tree_util.tree_map_with_path(put, state)


def start(mesh: Mesh, cfg: RelicConfig, batch: int) -> Callable[..., rollout.State]:
    """Jitted `rollout.start(picture, text, key, pose_weight)`.

    Raises:
      InputError: `batch` sessions can't be divided over the mesh.
    """
    check_batch(batch, mesh.shape)

    def begin(*arguments: Any) -> rollout.State:
        return _keep(rollout.start(cfg, *arguments))

    return jax.jit(begin)


def step(mesh: Mesh, cfg: RelicConfig, batch: int) -> Callable[..., tuple[rollout.State, Float[Array, "B L H W C"]]]:
    """Jitted `rollout.step(params, state, actions)`; the state is donated.

    Raises:
      InputError: `batch` sessions can't be divided over the mesh.
    """
    check_batch(batch, mesh.shape)

    def one(params: Params, state: rollout.State, actions: Array) -> tuple[rollout.State, Array]:
        state, latents = rollout.step(params, cfg, state, actions)
        return _keep(state), jax.lax.with_sharding_constraint(latents, SERVING.spec(("batch",)))

    return jax.jit(one, donate_argnums=1)


def _keep(state: rollout.State) -> rollout.State:
    """Says that every leaf lies where it should, so that the next step finds what it was compiled for."""

    def constrain(path: tuple, leaf: Array) -> Array:
        return jax.lax.with_sharding_constraint(leaf, state_spec(path, leaf))

    return jax.tree_util.tree_map_with_path(constrain, state)
