"""A conversion as a table: rows of (source name, our path, transform), checked to be a bijection.

`{i}` in a source name counts the layers that are stacked on our leaf's leading axis. Names of ours are
dotted paths into the nested dict of parameters. A row with `initial` is a leaf that published weights don't
have: it is read where a file has it (weights that were trained here) and made up where not.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from relic_jax.errors import InputError
from relic_jax.models import weights
from relic_jax.models.module import Params

SHOWN = 12  # problems that a message spells out; a wrong model has hundreds

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Transform:
    """How one tensor is laid out there and here; each function undoes the other."""

    to_relic: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]

    def source_shape(self, shape: Shape) -> Shape:
        """The shape that the tensor of our leaf of this shape has at the source."""
        return self.to_torch(np.broadcast_to(np.int8(0), shape)).shape


SAME = Transform(lambda x: x, lambda x: x)
# torch.nn.Linear: [out, in] to [in, out].
LINEAR = Transform(lambda x: x.T, lambda x: x.T)
# Convolutions of any rank: [out, in, *window] to [*window, in, out].
CONV = Transform(lambda x: np.moveaxis(x, (1, 0), (-2, -1)), lambda x: np.moveaxis(x, (-2, -1), (1, 0)))
# A 1x1 convolution of frames, which is one of videos here: [out, in, 1, 1] to [1, 1, 1, in, out].
FRAME_CONV = Transform(lambda x: CONV.to_relic(x)[None], lambda x: CONV.to_torch(x[0]))
# [1, ...] to [...].
SQUEEZE = Transform(lambda x: x[0], lambda x: x[None])


def trailing(count: int) -> Transform:
    """[channels, 1, ...] with `count` ones to [channels]."""
    return Transform(lambda x: x.reshape(x.shape[0]), lambda x: x.reshape(x.shape[0], *[1] * count))


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table; `initial(shape)` makes the leaf up where the source doesn't have it."""

    source: str
    target: str
    transform: Transform = SAME
    initial: Callable[[Shape], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A source tensor and its place: all of the leaf `target`, or entry `index` of its leading axis."""

    source: str
    shape: Shape
    target: str
    index: int | None
    row: Row

    @property
    def place(self) -> str:
        return self.target if self.index is None else f"{self.target}[{self.index}]"


def expand(rows: Sequence[Row], leaves: Params) -> list[Tensor]:
    """The table spelled out for a model of these leaves (arrays or `jax.ShapeDtypeStruct`).

    Raises:
      AssertionError: the table is no bijection, which is a mistake in the table.
    """
    shapes = {name: tuple(leaf.shape) for name, leaf in weights.leaves(leaves)}
    tensors = []
    for row in rows:
        shape = shapes[row.target]
        stacked = "{i}" in row.source
        source_shape = row.transform.source_shape(shape[1:] if stacked else shape)
        for index in range(shape[0]) if stacked else [None]:
            name = row.source.replace("{i}", str(index))
            tensors.append(Tensor(name, source_shape, row.target, index, row))
    targets, sources = Counter(row.target for row in rows), Counter(tensor.source for tensor in tensors)
    assert targets.keys() == shapes.keys(), f"no row for {sorted(shapes.keys() - targets.keys())}"
    twice = [name for counter in (targets, sources) for name, count in counter.items() if count > 1]
    assert not twice, f"used more than once: {twice}"
    return tensors


@dataclasses.dataclass(frozen=True)
class Match:
    """What becomes of the tensors of a source: converted, made up, left out with the reason."""

    tensors: list[Tensor]
    initialised: list[Tensor]
    ignored: dict[str, str]


def match(
    tensors: Sequence[Tensor],
    shapes: Mapping[str, Shape],
    ignored: Mapping[str, str],
    source: str,
    hint: Callable[[], str] = str,
) -> Match:
    """Holds the table against a source's tensors.

    Args:
      tensors: of `expand`.
      shapes: the source's tensors.
      ignored: regular expressions of names that are left out, each with the reason.
      source: the file or folder, for the message.
      hint: says more about a source that doesn't fit.

    Raises:
      InputError: lists every tensor that is missing, superfluous or of another shape.
    """
    extras = [tensor for tensor in tensors if tensor.row.initial is not None]
    trained = any(tensor.source in shapes for tensor in extras)
    wanted = {tensor.source: tensor for tensor in tensors if trained or tensor.row.initial is None}
    problems, left_out = [], {}
    for name, tensor in wanted.items():
        if name not in shapes:
            problems.append(f"{name} is missing, expected shape {list(tensor.shape)}")
        elif tuple(shapes[name]) != tensor.shape:
            problems.append(f"{name} has shape {list(shapes[name])}, expected {list(tensor.shape)}")
    for name, shape in shapes.items():
        if name not in wanted:
            reason = next((why for pattern, why in ignored.items() if re.fullmatch(pattern, name)), None)
            if reason is None:
                problems.append(f"{name} of shape {list(shape)} has no place in the model")
            else:
                left_out[name] = reason
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        lines = "".join(f"\n  {line}" for line in [*problems[:SHOWN], *more])
        raise InputError(f"{source} doesn't fit the model{hint()}; of {len(shapes)} tensors:{lines}")
    return Match(list(wanted.values()), [] if trained else extras, left_out)
