"""Tokens divided over `seq`, heads divided in self-attention, and one all-to-all each way between the two.

A block of the transformer works on its own tokens alone: norms, linear layers, cross-attention. For
self-attention the devices of `seq` exchange queries, keys and values (stacked: one all-to-all), so that each has
all tokens of its own group of heads, attends there to a cache that holds the same heads only, and sends the
result back (a second all-to-all). Neither activations nor the cache are ever gathered.

What a device sends in one block of the transformer, over n devices of `seq` and t of `tensor`, in bytes:

  in:   3 B N D e / (n t) * (n - 1) / n       B N D: samples of its own, tokens, width; e: bytes of a number
  out:    B N D e / (n t) * (n - 1) / n
  sums:   4 B N (3 D + 4) / n * 2 (t - 1) / t

The sums are those of three linear layers whose inputs are divided over `tensor` (both attentions' output, the
feed-forward's second), and of the four norms of Q and K, in float32.

Source: the scheme is RELIC's (its 4.5); the exchange is DeepSpeed-Ulysses' (arXiv 2309.14509).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from relic_jax.errors import InputError
from relic_jax.ops.attention import attention
from relic_jax.parallel.mesh import current
from relic_jax.parallel.rules import SERVING, constrain

Heads = Float[Array, "B N K d"]
_TOKENS = ("batch", "tokens", "heads", None)
_STORED = ("batch", None, "stored_heads", None)
_WHOLE = ("batch", None, "heads", None)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """How `count` tokens are divided over the mesh in use. Without one, every method hands back what it is given.

    A count that `seq` doesn't divide is padded at the end. Attention never sees the padding: it is cut off
    between the two exchanges.
    """

    count: int

    def divide(self, x: Float[Array, "B N D"]) -> Float[Array, "B N2 D"]:
        """Whole tokens, padded and divided."""
        if current() is None:
            return x
        x = jnp.pad(constrain(x, "batch"), ((0, 0), (0, self._padding), (0, 0)))
        return constrain(x, "batch", "tokens", None)

    def keep(self, x: Float[Array, "B N2 D"]) -> Float[Array, "B N2 D"]:
        """Divided tokens, said to stay so."""
        return constrain(x, "batch", "tokens", None)

    def join(self, x: Float[Array, "B N2 D"]) -> Float[Array, "B N D"]:
        """The inverse of `divide`: every device of `seq` gets all tokens."""
        return x if current() is None else constrain(x, "batch")[:, : self.count]

    def to_tokens(self, to_tokens: Callable[[Array], Array], latents: int) -> Callable[[Array], Array]:
        """`to_tokens` (see `models.dit`) for divided tokens: each device makes its own alone.

        Args:
          to_tokens: copies [B, L, ...] to tokens, [B, N, ...]: `x[:, owner]` in one form or another.
          latents: L.
        """
        if current() is None:
            return to_tokens
        owner = constrain(jnp.pad(to_tokens(jnp.arange(latents)[None])[0], (0, self._padding)), None)

        def own(x: Array, owner: Array) -> Array:
            return x.at[:, owner].get(mode="promise_in_bounds")

        def divided(x: Array) -> Array:
            samples, tokens = _spec(x, "batch"), SERVING.spec(("tokens",))
            return jax.shard_map(own, in_specs=(samples, tokens), out_specs=_spec(x, "batch", "tokens"))(x, owner)

        return divided

    def attend(self, attend: Any) -> Callable[..., tuple[Heads, Any]]:
        """An attention pattern (`models.attention`) for divided tokens: it sees all of them, for some of the heads.

        The cache, and what it keeps, are divided by heads; their leaves are [B, tokens, K, d].
        """
        mesh = current()
        if mesh is None:
            return attend

        arrays, pattern = jax.tree.flatten(attend)

        def local(arrays: list[Array], q: Heads, k: Heads, v: Heads, cache: Any) -> tuple[Heads, Any]:
            q, k, v = self._to_heads(jnp.stack([q, k, v]))
            out, kept = jax.tree.unflatten(pattern, arrays)(q, k, v, cache)
            return self._to_tokens(out), kept

        def apply(q: Heads, k: Heads, v: Heads, cache: Any) -> tuple[Heads, Any]:
            check_heads(q.shape[2], mesh.shape)
            samples, tokens, stored = _spec(q, "batch"), _spec(q, *_TOKENS), _spec(q, *_STORED)
            specs = (_pattern_specs(attend, samples), tokens, tokens, tokens, stored)
            exchanged = jax.shard_map(local, in_specs=specs, out_specs=(tokens, stored), check_vma=False)
            return exchanged(arrays, q, k, v, cache)

        return apply

    @property
    def _padding(self) -> int:
        return -self.count % current().shape["seq"]

    def _to_heads(self, x: Float[Array, "3 B n K d"]) -> Float[Array, "3 B N k d"]:
        return jax.lax.all_to_all(x, "seq", split_axis=3, concat_axis=2, tiled=True)[:, :, : self.count]

    def _to_tokens(self, x: Float[Array, "B N k d"]) -> Float[Array, "B n K d"]:
        padding = -self.count % jax.lax.axis_size("seq")
        x = jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0)))
        return jax.lax.all_to_all(x, "seq", split_axis=1, concat_axis=2, tiled=True)


def cross_attention(
    q: Heads, k: Float[Array, "B M K d"], v: Float[Array, "B M K d"], lengths: Int[Array, "B"] | None = None
) -> Heads:
    """Attention of divided tokens to a context that every device has, or its first `lengths`: nothing is exchanged."""
    ranges = None
    if lengths is not None:
        none = jnp.zeros_like(lengths)
        ranges = jnp.stack([none, lengths, none, none], axis=-1).reshape(-1, 2, 2)
    if current() is None:
        return attention(q, k, v, kv_ranges=ranges)[0]
    tokens, whole, samples = _spec(q, *_TOKENS), _spec(q, *_WHOLE), _spec(q, _TOKENS[0])
    local = jax.shard_map(
        lambda q, k, v, ranges: attention(q, k, v, kv_ranges=ranges)[0],
        in_specs=(tokens, whole, whole, samples),
        out_specs=tokens,
        check_vma=False,
    )
    return local(q, k, v, ranges)


def _pattern_specs(pattern: Any, samples: PartitionSpec) -> list[PartitionSpec]:
    """Where each array of an attention pattern lies: one with an entry a sample goes with it, others are copied."""
    divided = {field.name for field in dataclasses.fields(pattern) if field.metadata.get("per_sample")}
    return [samples if path[0].name in divided else PartitionSpec() for path, _ in jax.tree.leaves_with_path(pattern)]


def _spec(x: Array, *axes: str | None) -> PartitionSpec:
    return SERVING.activation(axes, x.shape, current().shape)


def bytes_per_block(
    samples: int, tokens: int, width: int, seq: int, tensor: int, exchanged: int, stored: int
) -> dict[str, float]:
    """What a device sends in one block of the transformer, by kind: the formula above.

    Args:
      samples, tokens: of a device's batch, and of the whole sequence. width: of the model.
      exchanged, stored: bytes of a number in attention, and in what linear layers add up.
    """
    own = samples * tokens / seq
    ring = 2 * (tensor - 1) / tensor  # an all-reduce sends each byte twice, but for a device's own share
    return {
        "all-to-all": 4 * own * width / tensor * exchanged * (seq - 1) / seq,
        "all-reduce": ring * own * (3 * width + 4) * stored,
    }


def check_heads(heads: int, mesh: Any) -> None:
    """Self-attention gives every device of `seq` and `tensor` the same number of whole heads.

    Raises:
      InputError: it can't.
    """
    pieces = mesh["seq"] * mesh["tensor"]
    if heads % pieces:
        raise InputError(
            f"{heads} heads can't be divided over seq={mesh['seq']} x tensor={mesh['tensor']} devices: "
            f"expected a divisor of {heads}"
        )
