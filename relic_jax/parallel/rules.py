"""Which axes of the mesh divide which axes of an array, in one place.

Parameters name their axes where they are declared (`models.module.param`), activations where they are
constrained. `Rules` says what each name means on a mesh. The paper's scheme (SPEC 7): linear layers and
cross-attention divide the tokens, self-attention divides the heads, keys and values of the memory are stored by
groups of heads. `tensor` divides heads and hidden features of the weights as well. Training divides parameters
and optimizer state over all devices that would hold copies of them (`TRAINING`); each matrix is gathered where it
is used, and its gradient comes back divided.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from relic_jax.errors import InputError
from relic_jax.parallel.mesh import current

Axes = tuple[str | None, ...]  # names of an array's axes, from the fields of `Rules`; None: never divided


@dataclasses.dataclass(frozen=True)
class Rules:
    """The axes of the mesh that divide an axis of this name, major first."""

    batch: tuple[str, ...] = ("data", "fsdp")
    tokens: tuple[str, ...] = ("seq",)
    stored_heads: tuple[str, ...] = ("tensor", "seq")  # heads of attended, cached and remembered keys and values
    heads: tuple[str, ...] = ("tensor",)
    mlp: tuple[str, ...] = ("tensor",)
    embed: tuple[str, ...] = ("fsdp",)
    layers: tuple[str, ...] = ()
    conv_in: tuple[str, ...] = ()
    conv_out: tuple[str, ...] = ()

    def spec(self, axes: Axes) -> PartitionSpec:
        """The partition of an array with these axes.

        Raises:
          ValueError: an axis is unknown, or two axes of one array would be divided by the same axis of the mesh.
        """
        names = {field.name for field in dataclasses.fields(self)}
        unknown = [axis for axis in axes if axis is not None and axis not in names]
        if unknown:
            raise ValueError(f"axis {unknown[0]!r} has no sharding rule; there are {', '.join(sorted(names))}")
        parts = [() if axis is None else getattr(self, axis) for axis in axes]
        used = [name for part in parts for name in part]
        twice = [name for name in used if used.count(name) > 1]
        if twice:
            raise ValueError(f"an array with axes {axes} would be divided over the mesh's {twice[0]!r} twice")
        return PartitionSpec(*(part if len(part) > 1 else part[0] if part else None for part in parts))

    def activation(self, axes: Axes, shape: tuple[int, ...], mesh: Mapping[str, int]) -> PartitionSpec:
        """As `spec`, but a batch that the mesh doesn't divide stays whole: a few samples that are only looked at."""
        whole = "batch" in axes and shape[axes.index("batch")] % math.prod(mesh[name] for name in self.batch)
        return self.spec(tuple(None if whole and axis == "batch" else axis for axis in axes))

    def parameter(self, axes: Axes, shape: tuple[int, ...], mesh: Mapping[str, int]) -> PartitionSpec:
        """The partition of a parameter on a mesh of these sizes.

        What `embed` would divide may stay whole: vectors, since gathering one costs a message and saves nothing,
        and sides that the mesh doesn't divide, such as the 52 features of an action.

        Raises:
          InputError: another side is not divisible.
        """
        matrix = sum(axis != "layers" for axis in axes) > 1
        kept = []
        for axis, size in zip(axes, shape, strict=True):
            pieces = math.prod(mesh[name] for name in (getattr(self, axis, ()) if axis else ()))
            if axis == "embed" and (not matrix or size % pieces):
                axis = None
            elif size % pieces:
                raise InputError(f"{size} {axis} can't be divided by the {pieces} devices of {getattr(self, axis)}")
            kept.append(axis)
        return self.spec(tuple(kept))


SERVING = Rules()
TRAINING = Rules(embed=("fsdp", "seq"))
_GATHERED = Rules(embed=())


def parameters(axes: Any, shapes: Any, rules: Rules, mesh: Mapping[str, int]) -> Any:
    """The partition of every leaf, from `models.module.logical_axes` and `models.module.abstract`.

    Raises:
      InputError: names the leaf that the mesh can't divide.
    """

    def leaf(path: tuple, names: Axes, shape: jax.ShapeDtypeStruct) -> PartitionSpec:
        try:
            return rules.parameter(names, shape.shape, mesh)
        except InputError as error:
            raise InputError(f"{jax.tree_util.keystr(path, simple=True, separator='/')}: {error}") from error

    return jax.tree_util.tree_map_with_path(leaf, axes, shapes, is_leaf=lambda x: isinstance(x, tuple))


def shardings(mesh: Mesh, specs: Any) -> Any:
    """The same tree with partitions placed on a mesh."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec))


def check_batch(batch: int, mesh: Mapping[str, int]) -> None:
    """Every device of `data` and `fsdp` has the same number of samples.

    Raises:
      InputError: it can't.
    """
    pieces = mesh["data"] * mesh["fsdp"]
    if batch % pieces:
        raise InputError(
            f"a batch of {batch} can't be divided over data={mesh['data']} x fsdp={mesh['fsdp']} devices: "
            f"expected a multiple of {pieces}"
        )


def constrain(x: Array, *axes: str | None) -> Array:
    """`x` divided over the mesh in use by the names of its first axes."""
    mesh = current()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, SERVING.activation(axes, x.shape, mesh.shape))


def gathered(parameter: nnx.Variable) -> Array:
    """A parameter's value for use: whole over the devices that only store a part of it.

    Its gradient is divided as `TRAINING` stores it, so that the sum over samples and tokens is a
    reduce-scatter and no device ever holds it whole.
    """
    value, mesh = parameter[...], current()
    if mesh is None:
        return value
    axes = parameter.get_metadata()["logical_axes"]
    stored = TRAINING.parameter(axes, value.shape, mesh.shape)
    return _gather(value, _GATHERED.spec(axes), stored)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(value: Array, whole: PartitionSpec, stored: PartitionSpec) -> Array:
    return jax.lax.with_sharding_constraint(value, whole)


def _gather_forward(value: Array, whole: PartitionSpec, stored: PartitionSpec) -> tuple[Array, None]:
    return _gather(value, whole, stored), None


def _gather_backward(whole: PartitionSpec, stored: PartitionSpec, _: None, gradient: Array) -> tuple[Array]:
    return (jax.lax.with_sharding_constraint(gradient, stored),)


_gather.defvjp(_gather_forward, _gather_backward)
