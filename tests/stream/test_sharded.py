"""A stream on eight virtual devices against the stream on one: results, where state lies, what is exchanged."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from relic_jax.errors import InputError
from relic_jax.memory.layout import layout
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.parallel import hlo
from relic_jax.parallel.exchange import bytes_per_block
from relic_jax.stream import rollout, sharded
from tests.parallel.meshes import (
    BATCH,
    CFG,
    MESHES,
    compile_quickly,
    divided,
    make,
    random_weights,
    relative_error,
    untyped,
)

BLOCKS = 4  # from the second on, memory is written and read
EVALUATIONS = len(CFG.stream.timesteps) + 1  # at full resolution; one more at t = 0 compresses


@pytest.fixture(scope="module")
def walk():
    """Weights, a first state, actions, and the latents and last state that one device makes of them."""
    rng = np.random.default_rng(1)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = random_weights()
    image, text = normal(BATCH, *CFG.latent_size, 16), normal(BATCH, CFG.dit.text_len, CFG.dit.text_dim)
    state = rollout.start(CFG, image, text, jax.random.key(1))
    actions = jnp.asarray(np.eye(13)[rng.integers(0, 13, (BLOCKS, BATCH, 8))], jnp.float32)
    one = compile_quickly(jax.jit(rollout.step, static_argnums=1), params, CFG, state, actions[0])
    latents, last = [], state
    for a in actions:
        last, made = one(params, last, a)
        latents.append(made)
    return params, state, actions, jnp.stack(latents), last


@functools.cache
def compiled(text):
    """The program of a step, its collectives, and what it needs."""
    mesh, params = make(text), random_weights()
    image = jnp.zeros((BATCH, *CFG.latent_size, 16))
    words = jnp.zeros((BATCH, CFG.dit.text_len, CFG.dit.text_dim))
    state = sharded.place_state(mesh, rollout.start(CFG, image, words, jax.random.key(1)))
    with jax.set_mesh(mesh):
        placed, actions = sharded.place(mesh, CFG, params), divided(mesh, jnp.zeros((BATCH, 8, 13)))
        program = compile_quickly(sharded.step(mesh, CFG, BATCH), placed, state, actions)
    return program, hlo.Program(program.as_text()).collectives


@pytest.mark.parametrize("text", MESHES)
def test_stream_equals_one_device(walk, text):
    params, state, actions, expected, last = walk
    mesh = make(text)
    program, _ = compiled(text)
    placed, state = sharded.place(mesh, CFG, params), sharded.place_state(mesh, state)
    for a, latents in zip(actions, expected, strict=True):
        state, made = program(placed, state, divided(mesh, a))
        assert relative_error(made, latents) < 1e-5
    for ours, theirs in ((state.cache.k, last.cache.k), (state.cache.v, last.cache.v)):
        assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("text", MESHES)
def test_every_leaf_of_the_state_lies_where_it_should(walk, text):
    mesh = make(text)
    state = sharded.place_state(mesh, walk[1])
    with untyped():
        kept = jax.tree.leaves(compiled(text)[0].output_shardings[0])
    samples, heads = P(("data", "fsdp")), P(None, ("data", "fsdp"), None, ("tensor", "seq"), None)
    expected = {"cache": heads, "key": P(), "block": P()}
    for (path, leaf), sharding in zip(jax.tree_util.tree_leaves_with_path(state), kept, strict=True):
        spec = expected.get(path[0].name, samples)
        assert leaf.sharding.spec == spec
        assert sharding.is_equivalent_to(jax.NamedSharding(mesh, spec), leaf.ndim)
    devices = mesh.shape["seq"] * mesh.shape["tensor"] * mesh.shape["data"] * mesh.shape["fsdp"]
    assert state.cache.k.addressable_shards[0].data.size * devices == state.cache.k.size  # nothing is stored twice


@pytest.mark.parametrize("text", MESHES)
def test_only_the_intended_is_exchanged(text):
    mesh, (_, found) = make(text).shape, compiled(text)
    lay, layers = layout(CFG), CFG.dit.layers
    samples = BATCH // (mesh["data"] * mesh["fsdp"])
    runs = [lay.tokens_per_block] * EVALUATIONS + [lay.coarse]
    by_kind = {kind: [c for c in found if c.kind == kind] for kind in ("all-to-all", "all-reduce", "all-gather")}
    assert sum(map(len, by_kind.values())) == len(found)

    exchanges = by_kind["all-to-all"]
    assert sum(c.count for c in exchanges) == (2 * layers * len(runs) if mesh["seq"] > 1 else 0)
    needed = [bytes_per_block(samples, n, CFG.dit.dim, mesh["seq"], mesh["tensor"], 4, 4) for n in runs]
    padding = 1 + (-lay.coarse % mesh["seq"]) / sum(runs)
    for kind in ("all-to-all", "all-reduce"):
        sent = sum(c.bytes for c in by_kind[kind])
        assert layers * sum(n[kind] for n in needed) <= sent * 1.001
        assert sent <= 1.05 * padding * layers * sum(n[kind] for n in needed)

    # Gathered are weights, a matrix at a time, and the velocity of each denoising evaluation: never the activations
    # of a block or the cache, which are `dim` wide.
    matrices = {tuple(leaf.shape[-2:]) for leaf in jax.tree.leaves(module.abstract(DiT, CFG.dit)) if leaf.ndim > 1}
    velocity = (samples, lay.tokens_per_block // mesh["seq"], CFG.dit.patch**2 * CFG.dit.latent_channels)
    for c in by_kind["all-gather"]:
        factor = c.groups.shape[1]
        rows, columns = c.shape[-2:]
        weight = {(rows * factor, columns), (rows, columns * factor)} & matrices and mesh["fsdp"] > 1
        assert weight or c.shape == velocity, (c.kind, c.shape, c.where)


def test_a_session_can_begin_on_the_mesh(walk):
    _, state, *_ = walk
    mesh = make("data=2,seq=2,tensor=2")
    with jax.set_mesh(mesh):
        words = jax.random.normal(jax.random.key(3), (BATCH, CFG.dit.text_len, CFG.dit.text_dim))
        begun = sharded.start(mesh, CFG, BATCH)(state.picture, words, jax.random.key(1))
    expected = rollout.start(CFG, state.picture, words, jax.random.key(1))
    assert relative_error(begun.text, expected.text) < 1e-5
    for path, leaf in jax.tree_util.tree_leaves_with_path(begun):
        assert leaf.sharding.is_equivalent_to(jax.NamedSharding(mesh, sharded.state_spec(path, leaf)), leaf.ndim)


def test_bad_input():
    mesh = make("data=2,seq=2,tensor=2")
    with pytest.raises(InputError, match="batch of 3 can't be divided over data=2 x fsdp=1 devices: .* multiple of 2"):
        sharded.step(mesh, CFG, 3)
    cfg = dataclasses.replace(CFG, dit=dataclasses.replace(CFG.dit, dim=96, heads=3))
    with pytest.raises(InputError, match="3 heads can't be divided over seq=2 x tensor=2 devices: .* divisor of 3"):
        sharded.weight_specs(mesh, cfg)
