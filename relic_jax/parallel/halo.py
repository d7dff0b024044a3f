"""The VAE's decoder with every frame's columns divided over `seq`.

    decode = divided(partial(vae.decode, cfg=cfg.vae), mesh)
    cache, frames = jit(decode)(params, cache, latents)

Norms and the temporal part of a causal convolution stay inside a column. A spatial convolution needs its
neighbours' outermost columns, which two `ppermute`s bring (beyond the frame's edge: zeros, which is the padding of
a whole frame). Attention inside the frame, at the resolution of the latents, gathers its keys and values.

What a device sends for a convolution of width 2 r + 1 over T frames: 2 r T H C numbers; it doesn't grow with the
number of devices.

Instead of dividing it, a decoder can have a device of its own: put its weights and cache there, and the jitted
`vae.decode` runs beside the next block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import Array, Float

from relic_jax.errors import InputError
from relic_jax.parallel.rules import SERVING, check_batch

_AXIS = "seq"


def divided(decode: Callable[..., tuple[Any, Array]], mesh: Mesh) -> Callable[..., tuple[Any, Array]]:
    """`decode(params, cache, latents) -> (cache, frames)` with samples and columns divided; weights are copied.

    Leaves of the cache are [B, T, H, W, C], or scalars.

    Raises:
      InputError: (when called) the columns of a latent or the samples can't be divided.
    """
    columns = PartitionSpec(*SERVING.spec(("batch", None, None)), _AXIS)

    def whole_frames(params: Any, cache: Any, latents: Float[Array, "B L h w C"]) -> tuple[Any, Array]:
        if latents.shape[3] % mesh.shape[_AXIS]:
            raise InputError(
                f"latents of {latents.shape[3]} columns can't be divided over seq={mesh.shape[_AXIS]} devices"
            )
        check_batch(latents.shape[0], mesh.shape)
        place = jax.tree.map(lambda leaf: columns if leaf.ndim else PartitionSpec(), cache)
        local = jax.shard_map(
            decode,
            mesh=mesh,
            in_specs=(PartitionSpec(), place, columns),
            out_specs=(place, columns),
            check_vma=False,
        )
        return local(params, cache, latents)

    return whole_frames


def is_divided() -> bool:
    """Whether the code being traced has some of a frame's columns only."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and dict(zip(mesh.axis_names, mesh.axis_types, strict=True)).get(_AXIS) == AxisType.Manual


def widened(x: Float[Array, "N H W C"], columns: int) -> Float[Array, "N H W2 C"]:
    """With that many columns of the neighbours on either side, zeros beyond the frame."""
    devices = jax.lax.axis_size(_AXIS)
    rightwards = [(i, i + 1) for i in range(devices - 1)]
    from_left = jax.lax.ppermute(x[:, :, -columns:], _AXIS, rightwards)
    from_right = jax.lax.ppermute(x[:, :, :columns], _AXIS, [(b, a) for a, b in rightwards])
    return jnp.concatenate([from_left, x, from_right], axis=2)


def gathered(x: Float[Array, "N S C"]) -> Float[Array, "N S2 C"]:
    """All tokens of a frame, those of a device after those of the one before; as given if nothing is divided."""
    return jax.lax.all_gather(x, _AXIS, axis=1, tiled=True) if is_divided() else x
