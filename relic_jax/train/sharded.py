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

from relic_jax.parallel.mesh import current
from relic_jax.parallel.rules import TRAINING, parameters
from relic_jax.train.stage import Stage


def specs(stage: Stage, optimizer: optax.GradientTransformation, mesh: Mapping[str, int]) -> dict[str, Any]:
    """The partition of every leaf of `loop.State.trees()` on a mesh of these sizes.

    Moments lie where their parameter does.

    Raises:
      InputError: the mesh can't divide a parameter; names it.
    """
    shapes = jax.eval_shape(lambda: stage.init(jax.random.key(0)))
    params = parameters(stage.logical_axes(shapes), shapes, TRAINING, mesh)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda _, spec: spec,
        jax.eval_shape(optimizer.init, shapes),
        params,
        transform_non_params=lambda _: PartitionSpec(),
    )
    return {"params": params, "ema": params, "opt_state": opt_state}


def abstract(trees: dict[str, Any], stage: Stage, optimizer: optax.GradientTransformation, mesh: Any) -> dict[str, Any]:
    """Shapes of `loop.State.trees()` that say where each leaf lies, to restore or compile for a mesh."""

    def place(leaf: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    divided = specs(stage, optimizer, mesh.shape)
    return {name: jax.tree.map(place, tree, divided[name]) for name, tree in trees.items()}


def keeper[S](stage: Stage, optimizer: optax.GradientTransformation) -> Callable[[S], S]:
    """A function that says, under jit, that every leaf of a `loop.State` lies where it should."""
    mesh = current()
    if mesh is None:
        return lambda state: state
    divided = specs(stage, optimizer, mesh.shape)

    def keep(state: S) -> S:
        return dataclasses.replace(state, **jax.tree.map(jax.lax.with_sharding_constraint, state.trees(), divided))

    return keep
