"""Who attends to whom: the part of self-attention that differs between teacher, stream and packed training pass.

Each pattern is a frozen dataclass that JAX knows as a pytree: its arrays are leaves, its sizes static. So a pattern can
be handed through `jit`, `scan` and `shard_map` like any argument, and a mesh can say where its arrays lie.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float

from relic_jax.models import rope
from relic_jax.ops.attention import attention

Heads = Float[Array, "B N K d"]


def static(**options: Any) -> Any:
    """A field that is a size, not an array."""
    return dataclasses.field(metadata={"static": True}, **options)


def per_sample(**options: Any) -> Any:
    """A field whose arrays have a leading axis of samples, which a mesh divides; other fields' arrays are copied."""
    return dataclasses.field(metadata={"per_sample": True}, **options)


class AttentionPattern:
    """Rotates queries and keys, and attends. Subclasses are registered dataclasses."""

    def __call__(self, q: Heads, k: Heads, v: Heads, cache: Any) -> tuple[Heads, Any]:
        """What the queries attend to, and what is to be kept of this layer (stacked over layers, returned by the DiT).

        Args:
          q, k, v: of all tokens, not yet rotated.
          cache: this layer's part of what the DiT was given.
        """
        raise NotImplementedError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BidirectionalAttention(AttentionPattern):
    """Every token sees every other: the teacher."""

    angles: rope.Angles

    def __call__(self, q: Heads, k: Heads, v: Heads, cache: Any) -> tuple[Heads, Any]:
        del cache
        return attention(rope.rotate(q, self.angles), rope.rotate(k, self.angles), v)[0], None
