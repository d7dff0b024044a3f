"""What a model is told about a video, and how it enters the transformer (SPEC 2).

Actions and poses are folded four video frames to a latent by `camera`, embedded here, and enter every layer through a
zero-initialised linear layer: at step 0 the model is Wan exactly.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from relic_jax.config import DiTConfig, TextConfig
from relic_jax.models import umt5
from relic_jax.models.layers import MLP, ZeroInitLinear
from relic_jax.models.module import stack

ACTION_FEATURES = 52  # 13 actions x 4 frames
POSE_FEATURES = 48  # 12 numbers x 4 frames
_HEAD = 32  # width of a head of the transformer's own text encoder


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conditions:
    """All that a model is told about a batch of videos. Batches may be stacked on leading axes.

    Fields:
      text: text encoder states, zero-padded to `dit.text_len`.
      actions, poses: features of each latent (`camera.actions.action_features`, `camera.poses.pose_features`).
      pose_weight: 0 withholds a video's poses, 1 gives them.
    """

    text: Float[Array, "*S B M Dt"]
    actions: Float[Array, "*S B L 52"]
    poses: Float[Array, "*S B L 48"]
    pose_weight: Float[Array, "*S B"]

    @classmethod
    def of(cls, text: Any, actions: Any, poses: Any, pose_weight: Any = None) -> Conditions:
        """With the poses given, unless `pose_weight` says otherwise."""
        ones = jnp.ones(text.shape[:-2], jnp.float32)
        return cls(text, actions, poses, ones if pose_weight is None else pose_weight)

    def at(self, index: Any) -> Conditions:
        """Those of some latents: a slice of them, or for each video its own, [B, l]."""
        if isinstance(index, slice):
            return dataclasses.replace(self, actions=self.actions[..., index, :], poses=self.poses[..., index, :])

        def pick(x: Array) -> Array:
            return jnp.take_along_axis(x, index[..., None], axis=-2)

        return dataclasses.replace(self, actions=pick(self.actions), poses=pick(self.poses))


def text_lengths(text: Float[Array, "B M Dt"]) -> Int[Array, "B"]:
    """Tokens of each text; the states of what is padded are zero."""
    return (text != 0).any(-1).sum(-1)


class OwnTextEncoder(nnx.Module):
    """T5 blocks of the transformer's own, trained with it, for models without a pretrained text encoder.

    Frozen random states are no substitute: the transformer doesn't learn to read them.
    """

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        width = cfg.text_width
        block = TextConfig(dim=width, attention_dim=width, ffn_dim=2 * width, heads=max(1, width // _HEAD))
        self.words = umt5.Linear(cfg.text_dim, width, (None, "embed"), variance=1.0, rngs=rngs)
        self.blocks = stack(lambda r: umt5.Block(block, rngs=r), cfg.text_layers, rngs)
        self.norm = umt5.RMSNorm(width, block.eps, rngs=rngs)

    def __call__(self, text: Float[Array, "B M Dt"], lengths: Int[Array, "B"]) -> Float[Array, "B M W"]:
        """States of the text encoder to states of its own, zero beyond each text's length."""
        mask = jnp.arange(text.shape[1]) < lengths[:, None]
        x, _ = jax.lax.scan(lambda x, block: (block(x, mask), None), self.words(text), self.blocks)
        return jnp.where(mask[:, :, None], self.norm(x), 0.0)


class Conditioner(nnx.Module):
    """The two encoders, of actions and of poses."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.action = MLP(ACTION_FEATURES, cfg.cond_dim, cfg.cond_dim, activation="silu", rngs=rngs)
        self.pose = MLP(POSE_FEATURES, cfg.cond_dim, cfg.cond_dim, activation="silu", rngs=rngs)

    def __call__(self, conditions: Conditions) -> tuple[Float[Array, "B L E"], Float[Array, "B L E"]]:
        """Embeddings of actions and poses."""
        pose = self.pose(conditions.poses) * conditions.pose_weight[:, None, None]
        return self.action(conditions.actions), pose


class Injection(nnx.Module):
    """How an embedding enters a layer: SiLU, then a zero-initialised linear layer to the layer's width."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.proj = ZeroInitLinear(cfg.cond_dim, cfg.dim, axes=(None, "embed"), rngs=rngs)

    def __call__(self, embedding: Float[Array, "B L E"]) -> Float[Array, "B L D"]:
        return self.proj(jax.nn.silu(embedding))
