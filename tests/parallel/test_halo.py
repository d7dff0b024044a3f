"""The VAE's decoder on four devices, each with some columns, against the decoder on one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import TinyVAEConfig, VAEConfig
from relic_jax.errors import InputError
from relic_jax.models import module, tiny_vae, vae
from relic_jax.parallel import halo, hlo
from relic_jax.parallel import mesh as meshes
from tests.parallel.meshes import compile_quickly, relative_error

DEVICES, BATCH, LATENTS, HEIGHT, WIDTH = 4, 1, 2, 3, 8
CASES = {
    "wan": (vae, vae.VAE, VAEConfig(base_dim=4, multipliers=(1, 2, 2), res_blocks=1, temporal_down=(False, True))),
    "taew2_1": (tiny_vae, tiny_vae.TinyVAE, TinyVAEConfig(decoder_dims=(8, 8, 8, 4), blocks=1)),
}


@pytest.fixture(scope="module")
def mesh():
    return meshes.make(meshes.MeshShape(seq=DEVICES), jax.devices()[:DEVICES])


def example(name):
    """The decoder of a stream as a function, weights, an empty cache, and latents for two calls."""
    model, kind, cfg = CASES[name]
    rng = np.random.default_rng(0)
    shapes = module.abstract(kind, cfg)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(scale=0.3, size=s.shape), s.dtype), shapes)
    latents = jnp.asarray(rng.normal(size=(2, BATCH, LATENTS, HEIGHT, WIDTH, cfg.latent_channels)), jnp.float32)
    cache = model.init_decode_cache(cfg, BATCH, HEIGHT, WIDTH)
    return lambda p, c, z: model.decode(p, cfg, c, z), params, cache, latents


@pytest.mark.parametrize("name", CASES)
def test_divided_decode_is_the_decode(name, mesh):
    decode, params, cache, latents = example(name)
    one = compile_quickly(jax.jit(decode), params, cache, latents[0])
    four = compile_quickly(jax.jit(halo.divided(decode, mesh)), params, cache, latents[0])
    ours = cache
    for z in latents:  # the second call begins with what the first remembered
        cache, expected = one(params, cache, z)
        ours, frames = four(params, ours, z)
        assert relative_error(frames, expected) < 1e-5
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(cache), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-5 * max(float(jnp.abs(b).max()), 1.0))
    widest = max(jax.tree.leaves(ours), key=lambda leaf: leaf.size)
    assert widest.addressable_shards[0].data.shape[3] == widest.shape[3] // DEVICES

    # Outermost columns go to the neighbours; only attention inside a frame gathers, at the latents' resolution.
    found = hlo.Program(four.as_text()).collectives
    gathers = {"all-gather"} if name == "wan" else set()
    assert {c.kind for c in found} == {"collective-permute"} | gathers
    for c in found:
        if c.kind == "collective-permute":
            assert c.shape[2] == 1
        else:
            assert c.shape[1] == HEIGHT * WIDTH // DEVICES


def test_a_decoder_on_a_device_of_its_own(mesh):
    """The stream has four devices, the decoder the fifth: frames are the same, and they are there."""
    decode, params, cache, latents = example("taew2_1")
    expected = jax.jit(decode)(params, cache, latents[0])[1]
    own = jax.devices()[DEVICES]
    made = jax.device_put(latents[0], jax.NamedSharding(mesh, jax.P()))  # as a step leaves them
    frames = jax.jit(decode)(*jax.device_put((params, cache, made), own))[1]
    assert frames.devices() == {own} and relative_error(frames, expected) < 1e-6


def test_bad_input(mesh):
    decode, params, cache, latents = example("taew2_1")
    with pytest.raises(InputError, match="latents of 6 columns can't be divided over seq=4 devices"):
        halo.divided(partial(decode), mesh)(params, cache, latents[0, ..., :6, :])
