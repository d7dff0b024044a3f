"""Wan 2.1's diffusion transformer with RELIC's conditioning (SPEC 1 and 2).

The transformer works on tokens, not on videos: what a token is (a full-resolution patch, or a patch of a
pooled latent), where it stands and what it may attend to is the caller's, who passes

  to_tokens(x [B, L, ...]) -> [B, N, ...]   copies what belongs to a latent frame to that frame's tokens
  attend: AttentionPattern                  rotates and attends; what it keeps is stacked over the layers and returned

The bidirectional teacher, the streaming student and the packed training pass differ in these two alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from relic_jax.config import DiTConfig
from relic_jax.models import rope
from relic_jax.models.attention import AttentionPattern, BidirectionalAttention, Heads
from relic_jax.models.conditioning import Conditioner, Conditions, Injection, OwnTextEncoder, text_lengths
from relic_jax.models.layers import MLP, LayerNorm, Linear, RMSNorm, ZeroInitLinear, layer_norm, sinusoidal
from relic_jax.models.module import param, stack
from relic_jax.parallel.exchange import Tokens, cross_attention
from relic_jax.parallel.rules import constrain, gathered

ToTokens = Callable[[Array], Array]


class QKV(nnx.Module):
    """Projections of an attention layer; QK-norm over the whole width, before the head split."""

    def __init__(self, cfg: DiTConfig, *, output: type[Linear] = Linear, rngs: nnx.Rngs):
        self.q, self.k, self.v = (Linear(cfg.dim, cfg.dim, axes=("embed", "heads"), rngs=rngs) for _ in range(3))
        self.o = output(cfg.dim, cfg.dim, axes=("heads", "embed"), rngs=rngs)
        self.norm_q = RMSNorm(cfg.dim, cfg.eps, rngs=rngs)
        self.norm_k = RMSNorm(cfg.dim, cfg.eps, rngs=rngs)
        self.heads = cfg.heads

    def project(
        self, x: Float[Array, "B N D"], context: Float[Array, "B M D"], bias: Float[Array, "B N D"] | None = None
    ) -> tuple[Heads, Float[Array, "B M K d"], Float[Array, "B M K d"]]:
        """Normed queries of x, normed keys and plain values of the context; `bias` joins Q and K, never V."""
        q, k, v = self.q(x), self.k(context), self.v(context)
        if bias is not None:
            q, k = q + bias, k + bias
        dtype = self.q.kernel[...].dtype  # matrix products, attention's too, run in the kernels' dtype
        parts = (self.norm_q(q), self.norm_k(k), v)
        q, k, v = (rearrange(y.astype(dtype), "b n (k d) -> b n k d", k=self.heads) for y in parts)
        return q, k, v

    def output(self, x: Heads, dtype: DTypeLike) -> Float[Array, "B N D"]:
        return self.o(rearrange(x, "b n k d -> b n (k d)").astype(dtype))


class Layer(nnx.Module):
    """Self-attention, cross-attention and feed-forward, modulated by a timestep per latent frame (Wan's DiT block)."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.modulation = param(rngs, (6, cfg.dim), (None, "embed"), nnx.initializers.normal(cfg.dim**-0.5))
        self.self_attention = QKV(cfg, rngs=rngs)
        self.norm = LayerNorm(cfg.dim, cfg.eps, rngs=rngs)
        self.cross_attention = QKV(cfg, output=ZeroInitLinear, rngs=rngs)
        self.ffn = MLP(cfg.dim, cfg.ffn_dim, cfg.dim, activation="gelu", rngs=rngs)
        self.action = Injection(cfg, rngs=rngs)
        self.pose = Injection(cfg, rngs=rngs)
        self.eps = cfg.eps

    def __call__(
        self,
        x: Float[Array, "B N D"],
        modulation: Float[Array, "B L 6 D"],
        text: Float[Array, "B M D"],
        lengths: Int[Array, "B"] | None,
        action: Float[Array, "B L E"],
        pose: Float[Array, "B L E"],
        to_tokens: ToTokens,
        attend: Callable[..., tuple[Heads, Any]],
        cache: Any,
    ) -> tuple[Float[Array, "B N D"], Any]:
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            to_tokens(m) for m in jnp.moveaxis(modulation + gathered(self.modulation), 2, 0)
        )
        h = layer_norm(x, self.eps) * (1 + scale1) + shift1
        attended, kept = attend(*self.self_attention.project(h, h, to_tokens(self.pose(pose))), cache)
        x = x + gate1 * self.self_attention.output(attended, x.dtype)
        x = x + to_tokens(self.action(action))
        q, k, v = self.cross_attention.project(self.norm(x), text)
        x = x + self.cross_attention.output(cross_attention(q, k, v, lengths), x.dtype)
        h = layer_norm(x, self.eps) * (1 + scale2) + shift2
        return x + gate2 * self.ffn(h), kept


class DiT(nnx.Module):
    """The whole transformer; layers stacked on a leading axis and run by `jax.lax.scan`."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        patch = cfg.patch**2 * cfg.latent_channels
        self.patch_embedding = Linear(patch, cfg.dim, axes=(None, "embed"), rngs=rngs)
        self.text_encoder = OwnTextEncoder(cfg, rngs=rngs) if cfg.text_layers else None
        self.text_embedding = MLP(
            cfg.text_width if cfg.text_layers else cfg.text_dim, cfg.dim, cfg.dim, activation="gelu", rngs=rngs
        )
        self.time_embedding = MLP(cfg.freq_dim, cfg.dim, cfg.dim, activation="silu", rngs=rngs)
        self.time_projection = Linear(cfg.dim, 6 * cfg.dim, axes=("embed", None), rngs=rngs)
        self.conditioner = Conditioner(cfg, rngs=rngs)
        self.blocks = stack(lambda r: Layer(cfg, rngs=r), cfg.layers, rngs)
        self.head_modulation = param(rngs, (2, cfg.dim), (None, "embed"), nnx.initializers.normal(cfg.dim**-0.5))
        self.head = Linear(cfg.dim, patch, axes=("embed", None), rngs=rngs)
        self.cfg = cfg

    def __call__(
        self,
        patches: Float[Array, "B N P"],
        t: Float[Array, "B L"],
        conditions: Conditions,
        *,
        to_tokens: ToTokens,
        attend: AttentionPattern,
        cache: Any = None,
        checkpoint: bool = False,
    ) -> tuple[Float[Array, "B N P"], Any]:
        """Velocity of every token, and what `attend` kept, stacked over layers.

        Args:
          patches: noisy tokens, from `patchify`.
          t: timestep of each latent frame, 0 (clean) to 1000 (noise).
          conditions: of the same latents.
          to_tokens, attend: see the module's docstring.
          cache: a pytree with a leading axis of layers, handed to `attend` layer by layer.
          checkpoint: recompute each layer's activations in the backward pass.
        """
        tokens = Tokens(patches.shape[1])
        t, conditions = jax.tree.map(lambda x: constrain(x, "batch"), (t, conditions))
        lengths, (action, pose) = text_lengths(conditions.text), self.conditioner(conditions)
        text = conditions.text if self.text_encoder is None else self.text_encoder(conditions.text, lengths)
        text, seen = self.text_embedding(text), lengths if self.cfg.text_mask else None
        to_tokens, attended = tokens.to_tokens(to_tokens, t.shape[1]), tokens.attend(attend)
        x = self.patch_embedding(tokens.divide(patches))
        time = self.time_embedding(sinusoidal(t, self.cfg.freq_dim))
        modulation = rearrange(self.time_projection(jax.nn.silu(time)), "b l (m d) -> b l m d", m=6)

        def layer(x: Array, inputs: tuple[Layer, Any]) -> tuple[Array, Any]:
            one, cached = inputs
            x, kept = one(x, modulation, text, seen, action, pose, to_tokens, attended, cached)
            return tokens.keep(x), kept

        x, kept = jax.lax.scan(jax.checkpoint(layer) if checkpoint else layer, x, (self.blocks, cache))
        shift, scale = (to_tokens(m) for m in jnp.moveaxis(time[:, :, None] + gathered(self.head_modulation), 2, 0))
        return tokens.join(self.head(layer_norm(x, self.cfg.eps) * (1 + scale) + shift)), kept

    def video(
        self,
        latents: Float[Array, "B L H W C"],
        t: Float[Array, "B L"],
        conditions: Conditions,
        *,
        checkpoint: bool = False,
    ) -> Float[Array, "B L H W C"]:
        """Velocity of a whole sequence, every token attending to every other (the teacher).

        Args:
          t: timestep of each latent frame.
          checkpoint: recompute each layer's activations in the backward pass.
        """
        length, rows, columns = latents.shape[1], latents.shape[2] // self.cfg.patch, latents.shape[3] // self.cfg.patch
        velocity, _ = self(
            patchify(latents, self.cfg.patch),
            t,
            conditions,
            to_tokens=lambda x: jnp.repeat(x, rows * columns, axis=1),
            attend=BidirectionalAttention(grid_angles(self.cfg, jnp.arange(length), rows, columns)),
            checkpoint=checkpoint,
        )
        return unpatchify(velocity, self.cfg.patch, length, rows, columns)


def patchify(latents: Float[Array, "B L H W C"], patch: int) -> Float[Array, "B N P"]:
    """Tokens in the order latent, row, column; a token's numbers in the order row, column, channel."""
    return rearrange(latents, "b l (h p) (w q) c -> b (l h w) (p q c)", p=patch, q=patch)


def unpatchify(
    tokens: Float[Array, "B N P"], patch: int, length: int, rows: int, columns: int
) -> Float[Array, "B L H W C"]:
    """The inverse of `patchify`."""
    return rearrange(tokens, "b (l h w) (p q c) -> b l (h p) (w q) c", l=length, h=rows, w=columns, p=patch, q=patch)


def grid_angles(cfg: DiTConfig, positions: Array, rows: int, columns: int) -> rope.Angles:
    """RoPE angles [*batch, L rows columns, F] of full-resolution tokens of the latents at `positions` [*batch, L]."""
    row, column = np.indices((rows, columns)).reshape(2, -1)
    temporal, spatial = rope.temporal_angles(cfg, positions), rope.spatial_angles(cfg, row, column)
    temporal = jax.tree.map(lambda a: jnp.repeat(a, rows * columns, axis=-2), temporal)
    return rope.join(temporal, jax.tree.map(lambda a: jnp.tile(a, (positions.shape[-1], 1)), spatial))
