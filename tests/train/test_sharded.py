"""A teacher's step on eight virtual devices against the step on one: results, where state lies, what is exchanged."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from relic_jax.config import frames_of
from relic_jax.errors import InputError
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.parallel import hlo
from relic_jax.train import loop, sharded
from relic_jax.train import optimizer as optimizers
from relic_jax.train.stage import TeacherOptions, TrainConfig
from relic_jax.train.teacher import TeacherStage
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

LATENTS = 3  # 72 tokens: over 8 devices, none of them has a whole latent
TRAIN = TrainConfig(
    stage="teacher", model=CFG, data="", data_val="", steps=2, batch=BATCH, frames=frames_of(LATENTS),
    learning_rate=1e-3, warmup=1, schedule="constant", recompute=True, teacher=TeacherOptions(),
)  # fmt: skip
STAGE = TeacherStage(TRAIN, {}, {})
OPTIMIZER = optimizers.make(TRAIN, STAGE.decay_mask({}))


def batch():
    rng, frames = np.random.default_rng(2), TRAIN.frames

    def normal(*shape):
        return jnp.asarray(rng.normal(size=(BATCH, *shape)), jnp.float32)

    rotations = jnp.linalg.qr(normal(frames, 3, 3))[0]
    return {
        "latents": normal(LATENTS, *CFG.latent_size, 16),
        "text": normal(CFG.dit.text_len, CFG.dit.text_dim),
        "actions": jnp.abs(normal(frames, 13)),
        "rotations": rotations,
        "positions": normal(frames, 3),
        "unit": jnp.ones((BATCH,)),
    }


def make_step():
    return loop.make_step(STAGE, OPTIMIZER, TRAIN, jax.random.key(4))


@pytest.fixture(scope="module")
def one_device():
    """State and scalars after each of two steps."""
    state, made = loop.start(random_weights(), OPTIMIZER), []
    step = compile_quickly(make_step(), state, batch())
    for _ in range(2):
        state, scalars = step(state, batch())
        made.append((jax.device_get(state.trees()), jax.device_get(scalars)))
    return made


@functools.cache
def compiled(text):
    mesh = make(text)
    with jax.set_mesh(mesh):
        begin = jax.jit(lambda params: sharded.keeper(STAGE, OPTIMIZER)(loop.start(params, OPTIMIZER)))
        state = begin(random_weights())
        program = compile_quickly(make_step(), state, {name: divided(mesh, x) for name, x in batch().items()})
    return program, state


@pytest.mark.parametrize("text", MESHES)
def test_step_equals_one_device(one_device, text):
    mesh = make(text)
    program, state = compiled(text)
    state = jax.tree.map(jnp.copy, state)
    for trees, scalars in one_device:
        state, found = program(state, {name: divided(mesh, x) for name, x in batch().items()})
        for name, value in scalars.items():
            assert relative_error(found[name], value) < 1e-5, name
        for name, tree in trees.items():
            for (path, theirs), ours in zip(
                jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(state.trees()[name]), strict=True
            ):
                assert relative_error(ours, theirs) < 1e-5, (name, jax.tree_util.keystr(path))


@pytest.mark.parametrize("text", MESHES)
def test_every_leaf_lies_where_its_axes_say(text):
    mesh = make(text)
    program, state = compiled(text)
    with untyped():
        out = program.output_shardings[0]
    axes = jax.tree.leaves(module.logical_axes(DiT, CFG.dit), is_leaf=lambda x: isinstance(x, tuple))
    embed, tensor = ("fsdp", "seq"), "tensor"
    pieces = mesh.shape["fsdp"] * mesh.shape["seq"]

    def expected(names, shape):
        matrix = len([n for n in names if n != "layers"]) > 1
        return P(
            *(
                embed if n == "embed" and matrix and size % pieces == 0 else tensor if n in ("heads", "mlp") else None
                for n, size in zip(names, shape, strict=True)
            )
        )

    adam = state.opt_state[1][0]
    for tree, kept in (
        (state.params, out.params),
        (state.ema, out.ema),
        (adam.mu, out.opt_state[1][0].mu),
        (adam.nu, out.opt_state[1][0].nu),
    ):
        for names, leaf, after in zip(axes, jax.tree.leaves(tree), jax.tree.leaves(kept), strict=True):
            sharding = jax.NamedSharding(mesh, expected(names, leaf.shape))
            assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), (names, leaf.sharding)
            assert after.is_equivalent_to(sharding, leaf.ndim), (names, after)
    if pieces > 1:
        kernel = state.params["blocks"]["ffn"]["fc1"]["kernel"]
        assert kernel.addressable_shards[0].data.size * pieces * mesh.shape["tensor"] == kernel.size


@pytest.mark.parametrize("text", MESHES)
def test_no_activation_is_gathered(text):
    mesh, (program, _) = make(text).shape, compiled(text)
    found = hlo.Program(program.as_text()).collectives
    layers = CFG.dit.layers
    # Forward, forward again in the backward pass, and back.
    exchanges = [c for c in found if c.kind == "all-to-all" and "shard_map" in c.where]
    assert sum(c.count for c in exchanges) == (6 * layers if mesh["seq"] > 1 else 0)
    samples, tokens = BATCH // (mesh["data"] * mesh["fsdp"]), LATENTS * 24 // mesh["seq"]
    velocity = (samples, tokens, CFG.dit.patch**2 * CFG.dit.latent_channels)
    for c in found:
        if c.kind == "all-gather":
            activation = len(c.shape) > 2 and c.shape[-3] == samples and c.shape[-2] == tokens
            assert not activation or c.shape == velocity, (c.shape, c.where)


def test_bad_input():
    with pytest.raises(InputError, match="a batch of 8 can't be divided over data=1 x fsdp=3 devices"):
        dataclasses.replace(TRAIN, mesh="fsdp=3")
    with pytest.raises(InputError, match="'rows' is no axis"):
        dataclasses.replace(TRAIN, mesh="rows=2")
    with pytest.raises(InputError, match="cross_attention/k/bias: 128 heads can't be divided by the 5 devices"):
        sharded.specs(STAGE, OPTIMIZER, {"data": 1, "fsdp": 1, "seq": 1, "tensor": 5})
