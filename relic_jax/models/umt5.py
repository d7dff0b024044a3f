"""The umT5 text encoder (SPEC 1): T5 1.1 with a relative position bias of its own in every layer.

Sources: T5 (arXiv 1910.10683), umT5 (arXiv 2304.09151); behaviour checked against transformers' `UMT5EncoderModel`.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from relic_jax.config import TextConfig
from relic_jax.models.module import Params, bind, param, stack


class Linear(nnx.Module):
    """y = x W, the product in the kernel's dtype with float32 accumulation (as `layers.Linear`; T5 has no biases)."""

    def __init__(
        self, features_in: int, features_out: int, axes: tuple[str | None, str], *, variance: float, rngs: nnx.Rngs
    ):
        init = nnx.initializers.normal(variance**0.5)
        self.kernel = param(rngs, (features_in, features_out), axes, init)

    def __call__(self, x: Float[Array, "B N I"]) -> Float[Array, "B N O"]:
        kernel = self.kernel[...]
        return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)


class RMSNorm(nnx.Module):
    """T5's layer norm: no mean, no bias."""

    def __init__(self, dim: int, eps: float, *, rngs: nnx.Rngs):
        self.scale = param(rngs, (dim,), ("embed",), nnx.initializers.ones)
        self.eps = eps

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps) * self.scale[...]


class Attention(nnx.Module):
    """Bidirectional self-attention, unscaled: T5 folds 1/sqrt(head_dim) into the initialisation of q."""

    def __init__(self, cfg: TextConfig, *, rngs: nnx.Rngs):
        dim, inner = cfg.dim, cfg.attention_dim
        self.heads, self.max_distance = cfg.heads, cfg.max_distance
        self.q = Linear(dim, inner, ("embed", "heads"), variance=cfg.heads / (dim * inner), rngs=rngs)
        self.k = Linear(dim, inner, ("embed", "heads"), variance=1 / dim, rngs=rngs)
        self.v = Linear(dim, inner, ("embed", "heads"), variance=1 / dim, rngs=rngs)
        self.o = Linear(inner, dim, ("heads", "embed"), variance=1 / inner, rngs=rngs)
        self.bias = param(rngs, (cfg.buckets, cfg.heads), (None, "heads"), nnx.initializers.normal(dim**-0.5))

    def __call__(self, x: Float[Array, "B N D"], mask: Bool[Array, "B N"]) -> Float[Array, "B N D"]:
        dtype = self.q.kernel[...].dtype
        q, k, v = (
            rearrange(proj(x).astype(dtype), "B N (K C) -> B K N C", K=self.heads) for proj in (self.q, self.k, self.v)
        )
        table = self.bias[...]
        buckets = relative_position_bucket(x.shape[1], table.shape[0], self.max_distance)
        scores = jnp.einsum("bkqc,bknc->bkqn", q, k, preferred_element_type=jnp.float32)
        scores += rearrange(table[buckets], "Q N K -> 1 K Q N")
        # finfo.min, not -inf: a row of padding only must not become NaN before it is zeroed.
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(dtype)
        out = jnp.einsum("bkqn,bknc->bkqc", weights, v, preferred_element_type=jnp.float32)
        return self.o(rearrange(out, "B K N C -> B N (K C)"))


class FeedForward(nnx.Module):
    """Gated GELU (tanh form)."""

    def __init__(self, cfg: TextConfig, *, rngs: nnx.Rngs):
        self.gate = Linear(cfg.dim, cfg.ffn_dim, ("embed", "mlp"), variance=1 / cfg.dim, rngs=rngs)
        self.up = Linear(cfg.dim, cfg.ffn_dim, ("embed", "mlp"), variance=1 / cfg.dim, rngs=rngs)
        self.down = Linear(cfg.ffn_dim, cfg.dim, ("mlp", "embed"), variance=1 / cfg.ffn_dim, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        return self.down(jax.nn.gelu(self.gate(x), approximate=True) * self.up(x))


class Block(nnx.Module):
    """x += attention(norm(x)); x += ffn(norm(x))."""

    def __init__(self, cfg: TextConfig, *, rngs: nnx.Rngs):
        self.norm1 = RMSNorm(cfg.dim, cfg.eps, rngs=rngs)
        self.attention = Attention(cfg, rngs=rngs)
        self.norm2 = RMSNorm(cfg.dim, cfg.eps, rngs=rngs)
        self.ffn = FeedForward(cfg, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"], mask: Bool[Array, "B N"]) -> Float[Array, "B N D"]:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.ffn(self.norm2(x))


class UMT5(nnx.Module):
    """Token ids to text features. `layers.cast_kernels` chooses the matrix products' dtype; the rest is float32."""

    def __init__(self, cfg: TextConfig, *, rngs: nnx.Rngs):
        self.embedding = param(rngs, (cfg.vocab, cfg.dim), ("vocab", "embed"), nnx.initializers.normal(1.0))
        self.blocks = stack(lambda rngs: Block(cfg, rngs=rngs), cfg.layers, rngs)
        self.norm = RMSNorm(cfg.dim, cfg.eps, rngs=rngs)

    def __call__(self, ids: Int[Array, "B N"], mask: Bool[Array, "B N"]) -> Float[Array, "B N D"]:
        x = self.embedding[...][ids].astype(jnp.float32)
        x, _ = jax.lax.scan(lambda x, block: (block(x, mask), None), x, self.blocks)
        return jnp.where(mask[:, :, None], self.norm(x), 0.0)


class OneHot(nnx.Module):
    """No encoder: an id's own axis, without parameters. The transformer learns what it means (`dit.text_layers`)."""

    def __init__(self, cfg: TextConfig, *, rngs: nnx.Rngs):
        self.vocab = cfg.vocab

    def __call__(self, ids: Int[Array, "B N"], mask: Bool[Array, "B N"]) -> Float[Array, "B N V"]:
        return jax.nn.one_hot(ids, self.vocab) * mask[:, :, None]


def text_encoder(cfg: TextConfig, *, rngs: nnx.Rngs) -> UMT5 | OneHot:
    """The encoder of a configuration."""
    return UMT5(cfg, rngs=rngs) if cfg.layers else OneHot(cfg, rngs=rngs)


@functools.partial(jax.jit, static_argnames="cfg")
def encode(params: Params, cfg: TextConfig, ids: Int[Array, "B N"], mask: Bool[Array, "B N"]) -> Float[Array, "B N D"]:
    """Text features (float32), exactly zero at padding, as Wan feeds them to the transformer.

    Args:
      params: of `text_encoder`.
      ids: token ids, padded on the right (`tokenizer.Tokenizer`).
      mask: true at tokens, false at padding.
    """
    return bind(text_encoder, cfg, params)(ids, mask)


def relative_position_bucket(length: int, buckets: int, max_distance: int) -> Int[np.ndarray, "Q N"]:
    """The bucket of each (query, key) pair of a sequence (T5, mesh-tensorflow's `_relative_position_bucket`).

    Half of the buckets are for keys after the query. In each half, one half is for exact distances and
    the other grows logarithmically up to `max_distance`, where everything farther is one bucket.
    """
    relative = np.arange(length)[None, :] - np.arange(length)[:, None]
    half, exact = buckets // 2, buckets // 4
    distance = np.abs(relative)
    # float32 like the original: in float64 a distance on a bucket's edge can land in the other one.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        math.log(max_distance / exact)
    )
    far = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int64), half - 1)
    return (np.where(relative > 0, half, 0) + np.where(distance < exact, distance, far)).astype(np.int32)
