"""The VAE's loss: its terms, its gradients, and that a step along them helps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import VAEConfig
from relic_jax.models import vae
from relic_jax.models.module import init
from relic_jax.train.vae import reconstruction_loss as loss
from tests.train.toy import config

pytestmark = pytest.mark.usefixtures("compile_once")

CFG = VAEConfig(base_dim=4, multipliers=(1, 2, 4), res_blocks=1, temporal_down=(True, True), patch_size=2)
# A moving gradient: something that can be learnt, unlike noise.
T, Y, X, C = jnp.meshgrid(*(jnp.arange(n) for n in (5, 16, 16, 3)), indexing="ij")
VIDEO = jnp.sin(T / 4 + Y / 6 + X / 8 + C)[None]
WEIGHTS = config(mse=3.0, kl=1e-5)


@functools.cache
def gradient():
    return jax.jit(lambda p, k: jax.value_and_grad(loss, has_aux=True)(p, CFG, VIDEO, k, WEIGHTS))


@functools.cache
def fresh():
    return jax.jit(lambda key: init(vae.VAE, CFG, key))(jax.random.key(0))


def test_terms_add_up_and_the_draw_follows_the_key():
    (value, metrics), _ = gradient()(fresh(), jax.random.key(2))
    np.testing.assert_allclose(value, metrics["l1"] + 3 * metrics["mse"] + 1e-5 * metrics["kl"], rtol=1e-6)
    assert metrics["kl"] > 0 and metrics["psnr_db"] >= 10 * np.log10(4 / metrics["mse"]) - 1e-4
    (again, _), _ = gradient()(fresh(), jax.random.key(2))
    (other, _), _ = gradient()(fresh(), jax.random.key(3))
    assert value == again and value != other


def test_a_fresh_posterior_is_narrow_and_residual_branches_are_silent():
    params = fresh()
    np.testing.assert_array_equal(params["quant_conv"]["bias"], np.repeat([0.0, vae.LOGVAR_OFFSET], 16))
    for half in ("encoder", "decoder"):
        for block in params[half]["mid_block"]["resnets"].values():
            assert not np.any(block["conv2"]["kernel"]) and np.any(block["conv1"]["kernel"])


def test_gradients_are_finite_and_leave_the_statistics_alone():
    (_, _), grads = gradient()(fresh(), jax.random.key(2))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert not np.any(grads["latent_mean"]) and not np.any(grads["latent_std"])
    for half, layer in (("encoder", "conv_in"), ("decoder", "conv_in"), ("decoder", "conv_out")):
        assert np.any(grads[half][layer]["kernel"])


def test_gradient_steps_lower_the_loss():
    params = fresh()
    (before, _), _ = gradient()(params, jax.random.key(2))
    for _ in range(20):
        _, grads = gradient()(params, jax.random.key(2))
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
        params = jax.tree.map(lambda p, g, n=norm: p - 0.02 * g / n, params, grads)
    (after, _), _ = gradient()(params, jax.random.key(2))
    assert after < 0.95 * before


def test_convolutions_in_bfloat16_leave_loss_and_gradient_where_they_were():
    narrow = jax.jit(lambda p, k: jax.value_and_grad(loss, has_aux=True)(p, CFG, VIDEO, k, WEIGHTS, compute="bfloat16"))
    (value, metrics), grads = narrow(fresh(), jax.random.key(2))
    (exact, _), expected = gradient()(fresh(), jax.random.key(2))
    assert value != exact and all(x.dtype == "float32" for x in jax.tree.leaves((value, metrics, grads)))
    np.testing.assert_allclose(value, exact, rtol=2e-2)
    ours, theirs = (jnp.concatenate([g.ravel() for g in jax.tree.leaves(tree)]) for tree in (grads, expected))
    assert ours @ theirs > 0.99 * jnp.linalg.norm(ours) * jnp.linalg.norm(theirs)
