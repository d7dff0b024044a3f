"""Published weights, opened without being read: names and shapes at once, tensors one at a time.

A source is a safetensors file, a sharded set with its index, or a file of torch.save, which is read with
`weights_only=True` and memory-mapped: nothing in it is executed. What a file is, its first bytes say, not its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from relic_jax.errors import InputError
from weights_convert.table import Shape
from weights_convert.tables import Layout

# The containers of training checkpoints, best first: the moving average before the last weights.
_CONTAINERS = ("generator_ema", "generator", "state_dict", "model")
# What wrappers of PyTorch, and trainers, put into names.
_WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
_PREFIXES = ("module.", "model.", "diffusion_model.")
# How files of torch.save begin: a ZIP archive, or a pickle in old ones.
_TORCH_SAVE = (b"PK\x03\x04", b"\x80")
_SHARD = re.compile(r"-\d+-of-0*([2-9]|[1-9]\d+)\.")

# What weights may be of, by name.
DTYPES = {np.dtype(kind).name: np.dtype(kind) for kind in (np.float64, np.float32, np.float16, jnp.bfloat16)}
SAFETENSORS_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file: `name` as it is there, `dtype` in NumPy's words."""

    file: Path
    name: str
    shape: Shape
    dtype: str


class Source:
    """The files of a model and their tensors.

    Fields:
      path: what the person named, for messages.
      files: one or more, in order.
      stored: every tensor, by its name without wrappers and prefixes.
    """

    def __init__(self, path: Path, files: list[Path]):
        self.path = path
        self.files = files
        self.stored: dict[str, Stored] = {}
        for file in files:
            with _opened(file) as tensors:
                for stored in tensors.describe(file):
                    if stored.name in self.stored:
                        raise InputError(f"{path}: {stored.name} is in {self.stored[stored.name].file} and in {file}")
                    self.stored[stored.name] = stored
        for rename in _renames(list(self.stored)):
            renamed = {rename(name): stored for name, stored in self.stored.items()}
            if len(renamed) < len(self.stored):
                raise InputError(f"{path}: two tensors have the same name without the parts that wrappers add")
            self.stored = renamed

    @property
    def shapes(self) -> dict[str, Shape]:
        return {name: stored.shape for name, stored in self.stored.items()}

    def read(self, names: Container[str]) -> Iterator[tuple[str, np.ndarray]]:
        """The tensors of these names, file by file, each file mapped while its own are read."""
        for file in self.files:
            own = [(name, stored.name) for name, stored in self.stored.items() if stored.file == file and name in names]
            if own:
                with _opened(file) as tensors:
                    for name, stored in own:
                        yield name, tensors.read(stored)


def find(path: Path, layout: Layout) -> list[Path] | None:
    """The files of this layout at a path, which is a file or a folder; None if there are none.

    Raises:
      InputError: a sharded set without its index, one shard alone, or an index that names files that aren't there.
    """
    if path.is_file():
        if _SHARD.search(path.name):
            raise InputError(f"{path} is one of several shards; expected their folder or the index beside them")
        return _shards(path) if path.name.endswith(".index.json") else [path]
    for folder in (path, path / layout.folder):
        if layout.is_pickle and (folder / layout.file).is_file():
            return [folder / layout.file]
        index = folder / f"{layout.file}.safetensors.index.json"
        if index.is_file():
            return _shards(index)
        whole = folder / f"{layout.file}.safetensors"
        if whole.is_file():
            return [whole]
        shards = sorted(folder.glob(f"{layout.file}-*-of-*.safetensors"))
        if shards:
            raise InputError(f"{index} does not exist; expected the index of {len(shards)} shards beside it")
    return None


def _shards(index: Path) -> list[Path]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = [index.parent / name for name in sorted(set(names.values()))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is no index of safetensors files: {error!r}") from error
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{index} names {len(files)} files; missing: {', '.join(missing)}")
    return files


def _renames(names: list[str]) -> Iterator[Any]:
    """Functions that take wrappers' names and common prefixes off; a prefix goes only if all names have it."""
    yield lambda name: _WRAPPERS.sub("", name)
    names = [_WRAPPERS.sub("", name) for name in names]
    while prefix := next((p for p in _PREFIXES if names and all(name.startswith(p) for name in names)), None):
        yield lambda name, prefix=prefix: name.removeprefix(prefix)
        names = [name.removeprefix(prefix) for name in names]


class _Safetensors:
    def __init__(self, file: Any):
        self._file = file

    def describe(self, file: Path) -> Iterator[Stored]:
        for name in self._file.keys():
            tensor = self._file.get_slice(name)
            dtype = tensor.get_dtype()
            yield Stored(file, name, tuple(tensor.get_shape()), SAFETENSORS_DTYPES.get(dtype, dtype))

    def read(self, name: str) -> np.ndarray:
        return self._file.get_tensor(name)


class _Pickle:
    def __init__(self, state: Mapping[str, Any]):
        self._state = state

    def describe(self, file: Path) -> Iterator[Stored]:
        for name, tensor in self._state.items():
            yield Stored(file, name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def read(self, name: str) -> np.ndarray:
        import torch

        tensor = self._state[name].detach()
        if tensor.dtype == torch.bfloat16:  # NumPy has none of its own
            return tensor.view(torch.int16).numpy().view(DTYPES["bfloat16"])
        return tensor.numpy()


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[_Safetensors | _Pickle]:
    with file.open("rb") as stream:
        head = stream.read(9)
    if head[8:] != b"{":  # a safetensors file has eight bytes of length and then JSON
        if not head.startswith(_TORCH_SAVE):
            what = f"it begins with {head!r}" if head else "it is empty"
            raise InputError(f"{file} is neither a safetensors file nor one of torch.save: {what}")
        if file.suffix == ".safetensors":  # torch.load goes by the name
            raise InputError(f"{file} is a file of torch.save; expected safetensors, or a name that ends in .pth")
        yield _Pickle(_unpickled(file))
        return
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            yield _Safetensors(opened)
    except safetensors.SafetensorError as error:
        raise InputError(f"{file} is not a readable safetensors file, perhaps cut short: {error}") from error


def _unpickled(file: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise InputError(f'{file}: reading it takes PyTorch: pip install "relic-jax[convert]"') from error
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a broken or hostile file provokes
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{file} can't be read as a PyTorch file of tensors, perhaps cut short; code in it is never run: {reason}"
        ) from error
    container = next(
        (name for name in _CONTAINERS if isinstance(state, dict) and isinstance(state.get(name), dict)), None
    )
    state = state if container is None else state[container]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{file} holds no state dict; expected names and tensors, or one of {', '.join(_CONTAINERS)}")
    return state
