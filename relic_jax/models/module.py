"""How a module becomes a pure function: parameters in a plain nested dict, the module bound to them for a call.

Modules declare parameters (`nnx.Param` with `logical_axes` as metadata) and hold a pure `__call__`.
Nothing else of NNX is used: a model's parameters are `dict[str, ...]` of arrays, wherever they are: in a
checkpoint, under `jax.vjp` and on a mesh.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, PRNGKeyArray

from relic_jax.rng import each

Params = dict[str, Any]
Initializer = Callable[[PRNGKeyArray, tuple[int, ...], DTypeLike], Array]


def param(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str | None, ...], init: Initializer) -> nnx.Param:
    """A float32 parameter; `axes` names each dimension for the sharding rules of `parallel`."""
    if len(shape) != len(axes):
        raise ValueError(f"a parameter of shape {shape} needs {len(shape)} axis names, got {axes}")
    return nnx.Param(init(rngs.params(), shape, jnp.float32), logical_axes=axes)


@functools.cache
def _abstract[M: nnx.Module](module: Callable[..., M], config: Any) -> tuple[nnx.GraphDef[M], nnx.State]:
    model = nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(params=0)))
    return nnx.split(model, nnx.Param)


@functools.partial(jax.jit, static_argnums=(0, 1))  # one compilation, not one for each initialiser
def init(module: Callable[..., nnx.Module], config: Any, key: PRNGKeyArray) -> Params:
    """Fresh parameters of `module(config)` as a nested dict of float32 arrays."""
    return nnx.to_pure_dict(nnx.state(module(config, rngs=nnx.Rngs(params=key)), nnx.Param))


def abstract(module: Callable[..., nnx.Module], config: Any) -> Params:
    """The same dict with `jax.ShapeDtypeStruct` leaves; allocates nothing, whatever the size."""
    return nnx.to_pure_dict(_abstract(module, config)[1])


def logical_axes(module: Callable[..., nnx.Module], config: Any) -> Params:
    """The same dict with each leaf's tuple of axis names; stacked blocks have a leading `layers`."""
    state = _abstract(module, config)[1]

    def names(variable: nnx.Variable) -> tuple[str | None, ...]:
        axes = variable.get_metadata()["logical_axes"]
        return ("layers",) * (variable.get_value().ndim - len(axes)) + axes

    leaves, treedef = jax.tree.flatten(state, is_leaf=lambda x: isinstance(x, nnx.Variable))
    return nnx.to_pure_dict(jax.tree.unflatten(treedef, [nnx.Param(_Axes(names(v))) for v in leaves]))


class _Axes(tuple):
    """A tuple that JAX's tree functions take for a leaf only under `is_leaf`."""


def bind[M: nnx.Module](module: Callable[..., M], config: Any, params: Params) -> M:
    """The module holding these parameters, for calling it; costs nothing inside `jax.jit`."""
    graphdef, state = _abstract(module, config)
    state = jax.tree.map(lambda x: x, state)  # a copy: replacing values must not touch the cached one
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state)


def stack[M: nnx.Module](make: Callable[[nnx.Rngs], M], count: int, rngs: nnx.Rngs) -> M:
    """`count` modules as one whose every parameter has a leading axis, for `jax.lax.scan`."""
    keys = each(rngs.params(), count)
    return jax.vmap(lambda key: make(nnx.Rngs(params=key)))(keys)
