"""What a step is given, as shapes with named axes: one description that init, restore, sharding and `launch.plan` use.

On a mesh, parameters, their average and the optimizer's state are divided over the devices (`rules.TRAINING`), the
rows of a batch over those that have samples of their own, and everything else is copied to each.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from relic_jax.errors import InputError
from relic_jax.models import module
from relic_jax.parallel.mesh import current
from relic_jax.parallel.rules import TRAINING


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array: its shape and dtype, and the name of each axis for `parallel.rules` (None: never divided)."""

    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trees of `Leaf` for the arguments of a step: `Stage.step(state, frozen, batch, rng)`."""

    state: Any
    frozen: Any
    batch: dict[str, Leaf]


def parameters(kind: type[nnx.Module], config: Any) -> Any:
    """The parameters of `kind(config)`, divided as they train."""
    axes = module.logical_axes(kind, config)
    return jax.tree.map(lambda leaf, names: Leaf(leaf.shape, leaf.dtype, names), module.abstract(kind, config), axes)


def copies(shapes: Any) -> Any:
    """Arrays that every device has a copy of."""
    return jax.tree.map(lambda leaf: Leaf(leaf.shape, leaf.dtype, (None,) * len(leaf.shape)), shapes)


def rows(shapes: Any) -> Any:
    """Arrays with one entry a sample, on their first axis."""
    return jax.tree.map(lambda leaf: Leaf(leaf.shape, leaf.dtype, ("batch", *(None,) * (len(leaf.shape) - 1))), shapes)


def moments(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """An optimizer's state: moments lie where their parameter does."""

    def masked(leaf: Any) -> bool:  # what one of several optimizers leaves to another
        return isinstance(leaf, optax.MaskedNode)

    return optax.tree_map_params(
        optimizer,
        lambda leaf, param: leaf if masked(leaf) else Leaf(leaf.shape, leaf.dtype, param.axes),
        jax.eval_shape(optimizer.init, place(params, None)),
        params,
        transform_non_params=copies,
        is_leaf=masked,
    )


def specs(tree: Any, mesh: Any) -> Any:
    """The partition of every leaf on a mesh of these sizes.

    Raises:
      InputError: the mesh can't divide one; names it.
    """

    def spec(path: tuple[Any, ...], leaf: Leaf) -> PartitionSpec:
        try:
            return TRAINING.parameter(leaf.axes, leaf.shape, mesh)
        except InputError as error:
            raise InputError(f"{jax.tree_util.keystr(path, simple=True, separator='/')}: {error}") from error

    return jax.tree_util.tree_map_with_path(spec, tree)


def place(tree: Any, mesh: Mesh | None) -> Any:
    """Shapes that say where each leaf lies: what weights are loaded into, and what programs are compiled for."""
    if mesh is None:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)

    def placed(leaf: Leaf, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(placed, tree, specs(tree, mesh.shape))


def constrain[T](values: T, tree: Any) -> T:
    """Says under jit that every leaf lies where it should, on the mesh in use."""
    mesh = current()
    return values if mesh is None else jax.tree.map(jax.lax.with_sharding_constraint, values, specs(tree, mesh.shape))
