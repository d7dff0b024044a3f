"""Layers that the transformer is made of.

Activations stay in the dtype they come in (float32 here); a matrix product runs in the dtype of its
kernel. Casting the kernels (`cast_kernels`) is therefore the one knob for compute precision, and the
same call makes a serving copy of the weights half as large.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from relic_jax.models.module import Initializer, Params, param
from relic_jax.parallel.rules import gathered


@jax.custom_vjp
def product(x: Float[Array, "*batch D_in"], kernel: Float[Array, "D_in D_out"]) -> Float[Array, "*batch D_out"]:
    """x W in the kernel's dtype, added up in float32; so is the gradient, of what comes back in that dtype.

    JAX's own rule would multiply a float32 gradient with a bfloat16 kernel in float32, which tensor cores and AMX do at
    a fraction of their speed, for digits that the forward pass doesn't have.
    """
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array, Any]]:
    narrow = x.astype(kernel.dtype)
    return product(narrow, kernel), (narrow, kernel, np.zeros((), x.dtype))


def _product_backward(saved: tuple[Array, Array, Any], given: Array) -> tuple[Array, Array]:
    x, kernel, like = saved
    given, rows = given.astype(kernel.dtype), tuple(range(x.ndim - 1))
    of_x = jnp.matmul(given, kernel.T, preferred_element_type=jnp.float32)
    of_kernel = jax.lax.dot_general(x, given, ((rows, rows), ((), ())), preferred_element_type=jnp.float32)
    return of_x.astype(like.dtype), of_kernel.astype(kernel.dtype)


product.defvjp(_product_forward, _product_backward)


class Linear(nnx.Module):
    """y = x W + b, the product in the kernel's dtype with float32 accumulation."""

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        axes: tuple[str | None, str | None] = ("embed", "mlp"),
        kernel_init: Initializer = nnx.initializers.xavier_uniform(),
        rngs: nnx.Rngs,
    ):
        self.kernel = param(rngs, (features_in, features_out), axes, kernel_init)
        self.bias = param(rngs, (features_out,), (axes[1],), nnx.initializers.zeros)

    def __call__(self, x: Float[Array, "*batch D_in"]) -> Float[Array, "*batch D_out"]:
        kernel = gathered(self.kernel)
        y = product(x, kernel)
        return (y + self.bias[...]).astype(x.dtype)


class ZeroInitLinear(Linear):
    """A linear layer that gives nothing at first: what it adds to a trained model changes no bit of it."""

    def __init__(self, features_in: int, features_out: int, *, axes: tuple[str | None, str | None], rngs: nnx.Rngs):
        super().__init__(features_in, features_out, axes=axes, kernel_init=nnx.initializers.zeros, rngs=rngs)


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis, in float32."""

    def __init__(self, features: int, eps: float, *, rngs: nnx.Rngs):
        self.scale = param(rngs, (features,), ("heads",), nnx.initializers.ones)
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * self.scale[...]).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm with affine parameters, in float32."""

    def __init__(self, features: int, eps: float, *, rngs: nnx.Rngs):
        self.scale = param(rngs, (features,), ("embed",), nnx.initializers.ones)
        self.bias = param(rngs, (features,), ("embed",), nnx.initializers.zeros)
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        return (layer_norm(x, self.eps) * self.scale[...] + self.bias[...]).astype(x.dtype)


def layer_norm(x: Float[Array, "*batch D"], eps: float) -> Float[Array, "*batch D"]:
    """Layer norm without affine parameters, in float32."""
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    return (y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)).astype(x.dtype)


class MLP(nnx.Module):
    """Linear, an activation, Linear."""

    def __init__(self, features_in: int, hidden: int, features_out: int, *, activation: str, rngs: nnx.Rngs):
        self.fc1 = Linear(features_in, hidden, axes=("embed", "mlp"), rngs=rngs)
        self.fc2 = Linear(hidden, features_out, axes=("mlp", "embed"), rngs=rngs)
        self.activation = activation

    def __call__(self, x: Float[Array, "*batch D_in"]) -> Float[Array, "*batch D_out"]:
        x = self.fc1(x)
        x = jax.nn.silu(x) if self.activation == "silu" else jax.nn.gelu(x, approximate=True)
        return self.fc2(x)


def cast_kernels(params: Params, dtype: DTypeLike) -> Params:
    """The parameters with every matrix (leaf `kernel`) in `dtype`; norms, biases and modulation stay float32."""

    def cast(path: tuple, leaf: Array) -> Array:
        return leaf.astype(dtype) if path[-1].key == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(cast, params)


def sinusoidal(t: Float[Array, "*batch"], width: int) -> Float[Array, "*batch {width}"]:
    """Wan's timestep features: cosines, then sines, of t over geometric periods up to 1e4."""
    half = width // 2
    frequency = jnp.exp(-jnp.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = t.astype(jnp.float32)[..., None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
