"""2D convolution with a kernel gradient that XLA:CPU computes fast.

XLA writes the gradient with respect to a kernel as a convolution whose window is the whole picture. On its CPU backend
that takes four times as long as the convolution itself (3 x 3, 20 and 40 features). Here it is one matrix product a
picture, of small patches with what came back: 2.5 times as fast.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pictures = Float[Array, "N H W C"]
Kernel = Float[Array, "KH KW C D"]


def same(x: Pictures, kernel: Kernel) -> Float[Array, "N H W D"]:
    """Stride one, odd sides, zeros around: as many pixels come out as went in."""
    fast = jax.default_backend() == "cpu" and kernel.shape[0] > 1
    return _same(x, kernel) if fast else _plain(x, kernel)


def _plain(x: Pictures, kernel: Kernel) -> Float[Array, "N H W D"]:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


_same = jax.custom_vjp(_plain)


def _forward(x: Pictures, kernel: Kernel) -> tuple[Any, tuple[Pictures, Kernel]]:
    return _plain(x, kernel), (x, kernel)


def _backward(saved: tuple[Pictures, Kernel], given: Float[Array, "N H W D"]) -> tuple[Pictures, Kernel]:
    x, kernel = saved
    (of_x,) = jax.linear_transpose(partial(_plain, kernel=kernel), x)(given)
    return of_x, kernel_gradient(x, given, (kernel.shape[0], kernel.shape[1])).astype(kernel.dtype)


_same.defvjp(_forward, _backward)


def kernel_gradient(x: Pictures, given: Float[Array, "N H W D"], window: tuple[int, int]) -> Float[Array, "KH KW C D"]:
    """The kernel's gradient in float32, one picture at a time, so that its patches stay in the core's cache.

    Args:
      x: what was convolved. given: the gradient of what came of it.
      window: the kernel's sides, both odd.
    """
    _, height, width, channels = x.shape
    up, left = window[0] // 2, window[1] // 2
    padded = jnp.pad(x, ((0, 0), (up, up), (left, left), (0, 0)))

    def add(total: Array, picture: tuple[Array, Array]) -> tuple[Array, None]:
        around, back = picture
        taps = [around[i : i + height, j : j + width] for i in range(window[0]) for j in range(window[1])]
        patches = jnp.concatenate(taps, axis=-1).reshape(height * width, -1)
        # The few features first: the other way round the product takes half as long again.
        product = lax.dot_general(
            back.reshape(height * width, -1), patches, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        return total + product, None

    features = given.shape[-1]
    zero = jnp.zeros((features, window[0] * window[1] * channels), jnp.float32)
    total, _ = lax.scan(add, zero, (padded, given))
    return total.reshape(features, *window, channels).transpose(1, 2, 3, 0)
