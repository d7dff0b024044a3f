"""Attention behind one function with named backends.

Keys live in a buffer of constant size. Two half-open ranges (memory, window) say which of them are
valid, so no dense mask is ever stored, and the log-sum-exp that comes back lets partial results over
separate buffers be merged exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Attended = tuple[Float[Array, "B N K d"], Float[Array, "B N K"]]

LOGITS = "attention_logits"  # the scope of what a fused kernel would keep on the chip, in a compiled program's text
_LOGITS = 2**28  # held at once: 1 GiB in float32
_NO_KEYS = -1e30  # stands for the logit of an absent key: finite, so that empty rows stay free of NaN


def attention(
    q: Float[Array, "B N K d"],
    k: Float[Array, "B S K d"],
    v: Float[Array, "B S K d"],
    *,
    kv_ranges: Int[Array, "2 2"] | Int[Array, "B 2 2"] | None = None,
    backend: str = "xla",
) -> Attended:
    """Scaled dot-product attention over the valid keys.

    Args:
      q: queries, already rotated; k, v: keys and values, in any dtype.
      kv_ranges: two ranges [start, stop) of valid keys, for all or for each element of the batch; None: all.
        Keys outside are never read into the result, whatever they hold (NaN too).
      backend: a name in `BACKENDS`.

    Returns:
      The attended values in q's dtype, zero where a query has no valid key, and the float32
      log-sum-exp of the logits for `merge`.

    Raises:
      ValueError: the backend is unknown.
    """
    if backend not in BACKENDS:
        raise ValueError(f"attention backend {backend!r} is not one of {', '.join(sorted(BACKENDS))}")
    return BACKENDS[backend](q, k, v, kv_ranges)


def valid_keys(kv_ranges: Int[Array, "*batch 2 2"], count: int) -> Bool[Array, "*batch {count}"]:
    """Which of `count` keys fall into either range."""
    index = jnp.arange(count)
    inside = (index >= kv_ranges[..., 0, None]) & (index < kv_ranges[..., 1, None])
    return inside.any(-2)


def merge(parts: Sequence[Attended]) -> Attended:
    """Attention over the union of disjoint key sets, from the results over each (exact up to rounding)."""
    outs, lses = zip(*parts, strict=True)
    lse = jax.nn.logsumexp(jnp.stack(lses), axis=0)
    weighted = (o.astype(jnp.float32) * jnp.exp(part - lse)[..., None] for o, part in zip(outs, lses, strict=True))
    return functools.reduce(jnp.add, weighted).astype(outs[0].dtype), lse


def _xla(
    q: Float[Array, "B N K d"],
    k: Float[Array, "B S K d"],
    v: Float[Array, "B S K d"],
    kv_ranges: Int[Array, "2 2"] | Int[Array, "B 2 2"] | None,
) -> Attended:
    """Products in k's dtype (in q's where that has one byte) with float32 accumulation; softmax in float32.

    Logits beyond `_LOGITS` are made, and made again in the backward pass, a slice of the queries after the other.
    """
    batch, queries, heads, width = q.shape
    keys = k.shape[1]
    if k.dtype.itemsize == 1:
        k, v = k.astype(q.dtype), v.astype(q.dtype)
    valid = None
    if kv_ranges is not None:
        valid = jnp.broadcast_to(valid_keys(kv_ranges, keys), (batch, keys))
        k, v = (jnp.where(valid[:, :, None, None], x, 0) for x in (k, v))
    slices = -(-batch * heads * queries * keys // _LOGITS)
    if slices <= 1:
        return _dense(q, k, v, valid)
    size = -(-queries // slices)
    q = jnp.pad(q, ((0, 0), (0, slices * size - queries), (0, 0), (0, 0))).reshape(batch, slices, size, heads, width)
    parts = jax.lax.map(jax.checkpoint(lambda part: _dense(part, k, v, valid)), jnp.moveaxis(q, 1, 0))
    out, lse = (jnp.moveaxis(x, 0, 1).reshape(batch, slices * size, *x.shape[3:])[:, :queries] for x in parts)
    return out, lse


@jax.named_scope(LOGITS)
def _dense(
    q: Float[Array, "B N K d"], k: Float[Array, "B S K d"], v: Float[Array, "B S K d"], valid: Bool[Array, "B S"] | None
) -> Attended:
    batch, queries, heads, width = q.shape
    keys = k.shape[1]

    def rows(x: Array) -> Array:  # [B, n, K, D] -> [B K, n, D]: plain batched products, fastest on CPUs
        return x.swapaxes(1, 2).reshape(batch * heads, x.shape[1], width)

    product = jnp.matmul(rows(q).astype(k.dtype), rows(k).mT, preferred_element_type=jnp.float32)
    logits = product.reshape(batch, heads, queries, keys) * width**-0.5
    if valid is not None:
        logits = jnp.where(valid[:, None, None, :], logits, _NO_KEYS)
    peak = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    weights = jnp.exp(logits - peak)
    if valid is not None:
        weights = jnp.where(valid[:, None, None, :], weights, 0)
    total = weights.sum(-1, keepdims=True)
    weights = weights / jnp.maximum(total, 1e-30)
    out = jnp.matmul(
        weights.reshape(batch * heads, queries, keys).astype(v.dtype), rows(v), preferred_element_type=jnp.float32
    )
    out = out.reshape(batch, heads, queries, width).swapaxes(1, 2).astype(q.dtype)
    lse = jnp.where(total > 0, peak + jnp.log(jnp.maximum(total, 1e-30)), _NO_KEYS)
    return out, lse[..., 0].swapaxes(1, 2)


BACKENDS: dict[str, Callable[..., Attended]] = {"xla": _xla}
