"""One mesh with four axes, whatever the machine.

  data    copies of everything; each has samples of its own
  fsdp    samples of its own too, but parameters and optimizer state are divided
  seq     tokens are divided; in self-attention heads are, see `exchange`
  tensor  heads and the feed-forward's hidden features are divided, in weights and activations

An axis that isn't wanted has size 1. The mesh in use is JAX's own context, `with jax.set_mesh(mesh):`. Without
one every function of this package hands its argument back, so that one device compiles what it always did.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh

from relic_jax.errors import InputError

AXES = ("data", "fsdp", "seq", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """The size of each axis. The last axes hold neighbours: `tensor` and `seq` belong inside a machine."""

    data: int = 1
    fsdp: int = 1
    seq: int = 1
    tensor: int = 1

    @classmethod
    def parse(cls, text: str) -> MeshShape:
        """The shape that "seq=4,tensor=2" describes; an empty text is one device.

        Raises:
          InputError: an axis is unknown or named twice, or its size is no positive number.
        """
        sizes: dict[str, int] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, _, size = (p.strip() for p in part.partition("="))
            if name not in AXES:
                raise InputError(f"mesh {text!r}: {name!r} is no axis, expected some of {', '.join(AXES)} as in seq=4")
            if name in sizes:
                raise InputError(f"mesh {text!r} names {name!r} twice")
            if not size.isdecimal() or int(size) < 1:
                raise InputError(f"mesh {text!r}: the size of {name!r} is {size!r}, expected a number from 1 on")
            sizes[name] = int(size)
        return cls(**sizes)

    @property
    def sizes(self) -> dict[str, int]:
        return dataclasses.asdict(self)

    @property
    def devices(self) -> int:
        return math.prod(self.sizes.values())

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in self.sizes.items() if size > 1) or "one device"


def make(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over these devices, by default all there are.

    Raises:
      InputError: the shape's sizes don't multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if shape.devices != len(devices):
        raise InputError(
            f"mesh {shape} needs {shape.devices} device(s), there are {len(devices)}: "
            "the sizes of its axes must multiply to that"
        )
    sizes = tuple(shape.sizes.values())
    return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def current() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`, or None. Inside `shard_map` there is nothing left to divide: None as well."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or any(kind == AxisType.Manual for kind in mesh.axis_types) else mesh
