"""Parameters in safetensors files: nested dicts with dotted names, checked leaf by leaf before use.

`blocks.attention.q` in the file is `params["blocks"]["attention"]["q"]`. The expected tree
(`module.abstract`) says which leaves there must be, so a file is never trusted: what doesn't fit is named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from relic_jax import files
from relic_jax.errors import InputError
from relic_jax.models.module import Params


def save_safetensors(
    path: str | os.PathLike[str],
    params: Params,
    metadata: Mapping[str, str] | None = None,
    dtype: Any | None = None,
) -> None:
    """Writes the tree to one file, under a temporary name that is renamed when it is complete.

    Args:
      path: the file; its folder must exist. A file of that name is replaced whole.
      params: nested dicts of arrays, on any device.
      metadata: text kept in the file's header.
      dtype: stored dtype of floating-point leaves (`jnp.bfloat16` halves the file); None keeps theirs.

    Raises:
      InputError: the folder can't be written to.
    """
    path = Path(path)
    tensors = {name: _host(leaf, dtype) for name, leaf in leaves(params)}
    temporary = files.temporary(path)
    try:
        safetensors.numpy.save_file(tensors, temporary, metadata=dict(metadata or {}))
        temporary.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} can't be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_safetensors(path: str | os.PathLike[str], expected: Params) -> Params:
    """The tree of a file, with the names, shapes and dtypes of `expected`, as NumPy arrays on the host.

    Args:
      path: a file of `save_safetensors`.
      expected: nested dicts whose leaves have `shape` and `dtype` (`module.abstract(Module, config)`).

    Raises:
      InputError: there is no such file, it is not safetensors, or its first leaf that doesn't fit.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a safetensors file with {_count(expected)} parameters")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            _check_shapes(shapes, expected, str(path))
            # Leaf by leaf: beside the result only one stored tensor is in memory.
            return _fill(expected, lambda name, leaf: np.asarray(file.get_tensor(name), dtype=leaf.dtype))
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error


def names(path: str | os.PathLike[str]) -> list[str]:
    """The names of a safetensors file's tensors.

    Raises:
      InputError: there is no such file or it is not safetensors.
    """
    return _header(path, lambda file: list(file.keys()))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text in a safetensors file's header.

    Raises:
      InputError: there is no such file or it is not safetensors.
    """
    return _header(path, lambda file: dict(file.metadata() or {}))


def _header[T](path: str | os.PathLike[str], read: Callable[[Any], T]) -> T:
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; expected a safetensors file")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return read(file)
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error


def check_fits(params: Params, expected: Params, source: str) -> None:
    """Checks that two trees have the same leaves and shapes.

    Args:
      params: what came: arrays or `jax.ShapeDtypeStruct`.
      expected: what the configuration asks for, likewise.
      source: where `params` come from, for the message (a file name).

    Raises:
      InputError: names the first leaf that doesn't fit, in the order of `expected`, and both shapes.
    """
    _check_shapes({name: tuple(leaf.shape) for name, leaf in leaves(params)}, expected, source)


def leaves(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf with its dotted name, in the tree's own order."""
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], expected: Params, source: str) -> None:
    wanted = {name: tuple(leaf.shape) for name, leaf in leaves(expected)}
    for name, shape in wanted.items():
        if name not in shapes:
            raise InputError(f"{source} doesn't fit the config: {name} is missing, expected shape {shape}")
        if shapes[name] != shape:
            raise InputError(
                f"{source} doesn't fit the config: {name} has shape {shapes[name]}, expected shape {shape}"
            )
    for name, shape in shapes.items():
        if name not in wanted:
            raise InputError(f"{source} doesn't fit the config: {name} of shape {shape} is no parameter of the model")


def _fill(expected: Mapping[str, Any], read: Any, prefix: str = "") -> Params:
    return {
        key: _fill(value, read, f"{prefix}{key}.") if isinstance(value, Mapping) else read(f"{prefix}{key}", value)
        for key, value in expected.items()
    }


def _host(leaf: Any, dtype: Any | None) -> np.ndarray:
    array = np.asarray(jax.device_get(leaf), order="C")  # safetensors writes the buffer as it lies
    floating = jax.numpy.issubdtype(array.dtype, jax.numpy.floating)
    return array.astype(dtype) if dtype is not None and floating else array


def _count(expected: Params) -> int:
    return sum(1 for _ in leaves(expected))
