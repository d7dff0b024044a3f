"""The convolution with a kernel gradient of its own, against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.ops import convolution


def _plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("window", [(3, 3), (1, 3), (5, 3), (1, 1)])
def test_the_gradients_are_xlas(window):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (3, 8, 6, 5))
    kernel = jax.random.normal(keys[1], (*window, 5, 4))
    given = jax.random.normal(keys[2], (3, 8, 6, 4))
    ours, ours_back = jax.vjp(convolution.same, x, kernel)
    theirs, theirs_back = jax.vjp(_plain, x, kernel)
    assert np.array_equal(ours, theirs)
    for got, expected in zip(ours_back(given), theirs_back(given), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_the_kernel_gradient_of_narrow_inputs_is_summed_in_float32():
    x = jnp.ones((64, 20, 20, 1), jnp.bfloat16)  # sums of 400 are rounded in bfloat16, their total is not
    given = jnp.ones_like(x)
    assert convolution.kernel_gradient(x, given, (1, 1))[0, 0, 0, 0] == 64 * 20 * 20
    kernel = jnp.ones((3, 3, 1, 1), jnp.bfloat16)
    gradient = jax.grad(lambda k: convolution.same(x, k).astype(jnp.float32).sum())(kernel)
    assert gradient.dtype == jnp.bfloat16
    assert gradient[1, 1, 0, 0] == 64 * 20 * 20
