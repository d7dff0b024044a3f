"""The product of linear layers: the gradient of JAX's own rule, in the kernel's dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.models.layers import product


def given(dtype):
    rng = np.random.default_rng(0)
    x, back = (jnp.asarray(rng.standard_normal((2, 7, width)), jnp.float32) for width in (24, 40))
    return x, jnp.asarray(rng.standard_normal((24, 40)) / 5, dtype), back


def gradients(function, x, kernel, back):
    return jax.grad(lambda x, w: (function(x, w) * back).sum(), (0, 1))(x, kernel)


def plain(x, kernel):
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)


@pytest.mark.parametrize(("dtype", "close"), [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)])
def test_its_gradient_is_that_of_a_product(dtype, close):
    x, kernel, back = given(dtype)
    np.testing.assert_array_equal(product(x, kernel), plain(x, kernel))
    for got, want, like in zip(
        gradients(product, x, kernel, back), gradients(plain, x, kernel, back), (x, kernel), strict=True
    ):
        assert got.dtype == like.dtype and got.shape == like.shape
        error = jnp.linalg.norm((got - want).astype(jnp.float32)) / jnp.linalg.norm(want.astype(jnp.float32))
        assert error < close


def test_no_product_of_its_gradient_is_wider_than_the_kernel():
    x, kernel, back = given(jnp.bfloat16)
    products = [
        line for line in jax.jit(gradients, static_argnums=0).lower(product, x, kernel, back).as_text().splitlines()
        if "dot_general" in line
    ]  # fmt: skip
    assert len(products) == 2  # the forward one isn't needed
    for line in products:
        operands = line.split(" : (")[1].split(") -> ")[0]
        assert "bf16" in operands and "xf32" not in operands
