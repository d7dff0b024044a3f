"""Actions and camera poses as embeddings, one a latent frame (SPEC 2).

Both are folded four video frames to a latent by `camera.actions`, embedded here, and enter every block
by a zero-initialised linear layer: at step 0 the model is Wan exactly.
"""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float

from relic_jax.config import DiTConfig
from relic_jax.models.layers import MLP, Linear

ACTION_FEATURES = 52  # 13 actions x 4 frames
POSE_FEATURES = 48  # 12 numbers x 4 frames


class Conditioner(nnx.Module):
    """The two encoders."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.action = MLP(ACTION_FEATURES, cfg.cond_dim, cfg.cond_dim, activation="silu", rngs=rngs)
        self.pose = MLP(POSE_FEATURES, cfg.cond_dim, cfg.cond_dim, activation="silu", rngs=rngs)

    def __call__(
        self,
        actions: Float[Array, "B L 52"],
        poses: Float[Array, "B L 48"],
        pose_weight: Float[Array, "B"] | None = None,
    ) -> tuple[Float[Array, "B L E"], Float[Array, "B L E"]]:
        """Embeddings of actions and poses; `pose_weight` 0 withholds a sequence's poses."""
        pose = self.pose(poses)
        if pose_weight is not None:
            pose = pose * pose_weight[:, None, None]
        return self.action(actions), pose


class Door(nnx.Module):
    """How an embedding enters a block: SiLU, then a zero-initialised Linear to the block's width."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.proj = Linear(
            cfg.cond_dim, cfg.dim, axes=(None, "embed"), kernel_init=jax.nn.initializers.zeros, rngs=rngs
        )

    def __call__(self, embedding: Float[Array, "B L E"]) -> Float[Array, "B L D"]:
        return self.proj(jax.nn.silu(embedding))
