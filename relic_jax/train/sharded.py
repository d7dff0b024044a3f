"""Training on a mesh: parameters, their average and the optimizer's state divided over the devices.

The step is `loop.make_step`'s, called under `jax.set_mesh(mesh)`; here is where everything it changes lies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import NamedSharding, PartitionSpec

from relic_jax.config import DiTConfig
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.models.module import Params
from relic_jax.parallel.mesh import current
from relic_jax.parallel.rules import TRAINING, parameters
from relic_jax.train.stage import Stage


def specs(stage: Stage, optimizer: optax.GradientTransformation, mesh: Mapping[str, int]) -> dict[str, Any]:
    """The partition of every leaf of `loop.State.trees()` on a mesh of these sizes.

    Raises:
      InputError: the mesh can't divide a parameter; names it.
    """
    shapes = jax.eval_shape(lambda: stage.init(jax.random.key(0)))
    params = parameters(stage.logical_axes(shapes), shapes, TRAINING, mesh)
    trees = {"params": params, "ema": params, "opt_state": moments(optimizer, shapes, params)}
    extra = stage.extra_specs(mesh)
    return trees if extra is None else {**trees, "extra": extra}


def weights(dit: DiTConfig, mesh: Mapping[str, int]) -> Params:
    """The partition of every weight of a transformer that trains, or that judges one that does.

    Raises:
      InputError: the mesh can't divide one; names it.
    """
    return parameters(module.logical_axes(DiT, dit), module.abstract(DiT, dit), TRAINING, mesh)


def moments(optimizer: optax.GradientTransformation, shapes: Any, params: Any) -> Any:
    """The partition of an optimizer's state: moments lie where their parameter does.

    Args:
      shapes, params: shape and partition of every parameter.
    """
    return optax.tree_map_params(
        optimizer,
        lambda _, spec: spec,
        jax.eval_shape(optimizer.init, shapes),
        params,
        transform_non_params=lambda _: PartitionSpec(),
    )


def abstract(trees: dict[str, Any], stage: Stage, optimizer: optax.GradientTransformation, mesh: Any) -> dict[str, Any]:
    """Shapes of `loop.State.trees()` that say where each leaf lies, to restore or compile for a mesh."""
    divided = specs(stage, optimizer, mesh.shape)
    return {name: placed(mesh, tree, divided[name]) for name, tree in trees.items()}


def placed(mesh: Any, shapes: Any, specs: Any, *, on_host: bool = False) -> Any:
    """Shapes that say where each leaf lies: in the memory of the devices, or of the hosts that they belong to."""
    memory = "pinned_host" if on_host else None

    def place(leaf: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, spec, memory_kind=memory)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, shapes, specs)


def keeper[S](stage: Stage, optimizer: optax.GradientTransformation) -> Callable[[S], S]:
    """A function that says, under jit, that every leaf of a `loop.State` lies where it should."""
    mesh = current()
    if mesh is None:
        return lambda state: state
    divided = specs(stage, optimizer, mesh.shape)

    def keep(state: S) -> S:
        return dataclasses.replace(state, **jax.tree.map(jax.lax.with_sharding_constraint, state.trees(), divided))

    return keep
