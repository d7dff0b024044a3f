"""A PyTorch model's weights in memory, without files."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from relic_jax.models.module import Params
from weights_convert.table import match
from weights_convert.tables import Model


def params_of(model: Model, state: Mapping[str, np.ndarray], layout: str = "diffusers") -> Params:
    """Our parameters from a state dict, by the converter's table, in float32.

    Args:
      model: what the weights are of; its config is the size.
      state: name to array, as `layout` names them.
      layout: a name in `model.layouts`.

    Raises:
      InputError: lists what doesn't fit.
    """
    shapes = {name: value.shape for name, value in state.items()}
    plan = match(model.table(layout), shapes, model.layouts[layout].ignored, "the state dict")
    leaves: dict[str, list[np.ndarray]] = {}
    for tensor in plan.tensors:
        leaves.setdefault(tensor.target, []).append(tensor.row.transform.to_relic(state[tensor.source]))
    for tensor in plan.initialised:
        shape = tensor.row.transform.to_relic(np.broadcast_to(np.float32(0), tensor.shape)).shape
        leaves.setdefault(tensor.target, []).append(tensor.row.initial(shape))
    stacked = {tensor.target for tensor in [*plan.tensors, *plan.initialised] if tensor.index is not None}
    params: Params = {}
    for name, values in leaves.items():
        *path, leaf = name.split(".")
        node = params
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = jnp.asarray(np.stack(values) if name in stacked else values[0], jnp.float32)
    return params
