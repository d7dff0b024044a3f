"""Training steps on eight virtual devices against the steps on one: results, where state lies, what is exchanged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from relic_jax.errors import InputError
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.parallel import hlo
from relic_jax.train import abstract, loop
from relic_jax.train.ode import OdeConfig, OdeStage
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.teacher import TeacherConfig, TeacherStage
from tests.parallel.meshes import (
    BATCH,
    CFG,
    MESHES,
    check_same,
    clips,
    compile_quickly,
    divided,
    make,
    random_weights,
    untyped,
)
from tests.small import frames_of

# Teacher: 72 tokens, of which no device of eight has a whole latent. Ode: 26 pooled and 96 noisy ones, which four
# devices can't divide, and a window whose place differs from sample to sample.
LATENTS = {"teacher": 3, "ode": 6}
CASES = [("teacher", mesh) for mesh in MESHES] + [
    pytest.param("ode", mesh, marks=[] if mesh == "fsdp=2,seq=4" else pytest.mark.slow) for mesh in MESHES
]


def stage(name, **changed):
    """Of a small rate: Adam's first steps are signs, and where a gradient is all rounding those differ."""
    values = dict(
        stage=name, model=CFG, data="", data_val="", steps=2, batch=BATCH, frames=frames_of(LATENTS[name]),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup=1), recompute=True,
    )  # fmt: skip
    kinds = {"teacher": (TeacherConfig, TeacherStage), "ode": (OdeConfig, OdeStage)}
    kind, of = kinds[name]
    return of(kind(**values | changed))


def make_step(name):
    return loop.make_step(stage(name), jax.random.key(4))


def batch(name):
    latents = LATENTS[name]
    made = clips(latents)
    if name == "ode":
        rng, times = np.random.default_rng(3), len(CFG.stream.timesteps)
        path = rng.normal(size=(BATCH, latents, times, *CFG.latent_size, 16))
        made["trajectory"] = jnp.asarray(path, jnp.float32)
        made["timesteps"] = jnp.tile(jnp.asarray(CFG.stream.timesteps), (BATCH, 1))
    return made


@functools.cache
def one_device(name):
    """State and scalars after each of two steps."""
    state, made = stage(name).init(random_weights(), {}), []
    step = compile_quickly(make_step(name), state, {}, batch(name))
    for _ in range(2):
        state, scalars = step(state, {}, batch(name))
        made.append((jax.device_get(state.trees()), jax.device_get(scalars)))
    return made


def compiled(name, text):
    """The program of a step on a mesh, and the state before the first."""
    mesh, of = make(text), stage(name)
    with untyped():
        places = jax.tree.map(lambda leaf: leaf.sharding, abstract.place(of.abstract_state(), mesh))
    with jax.set_mesh(mesh):
        begin = jax.jit(lambda params: jax.tree.leaves(of.init(params, {})), out_shardings=jax.tree.leaves(places))
        state = jax.tree.unflatten(jax.tree.structure(places), begin(random_weights()))
        given = {field: divided(mesh, x) for field, x in batch(name).items()}
        program = compile_quickly(make_step(name), state, {}, given)
    return program, state


@pytest.mark.parametrize(("name", "text"), CASES)
def test_step_equals_one_device_lies_where_it_should_and_gathers_weights_alone(name, text):
    """One test of three: compiling the program is all the work."""
    mesh = make(text)
    program, state = compiled(name, text)
    check_no_activation_is_gathered(name, mesh.shape, program)
    if name == "teacher":
        check_every_leaf_lies_where_its_axes_say(mesh, program, state)
    state = jax.tree.map(jnp.copy, state)
    for expected in one_device(name):
        state, scalars = program(state, {}, {field: divided(mesh, x) for field, x in batch(name).items()})
        check_same((state, scalars), expected)


def check_every_leaf_lies_where_its_axes_say(mesh, program, state):
    with untyped():
        out = program.output_shardings[0]
    axes = jax.tree.leaves(module.logical_axes(DiT, CFG.dit), is_leaf=lambda x: isinstance(x, tuple))
    pieces = mesh.shape["fsdp"] * mesh.shape["seq"]

    def expected(names, shape):
        matrix = len([n for n in names if n != "layers"]) > 1
        sides = [
            ("fsdp", "seq") if n == "embed" and matrix and size % pieces == 0
            else "tensor" if n in ("heads", "mlp")
            else None
            for n, size in zip(names, shape, strict=True)
        ]  # fmt: skip
        return P(*sides)

    adam, adam_out = state.opt_state[1][0], out.opt_state[1][0]
    for tree, kept in (
        (state.params, out.params),
        (state.ema, out.ema),
        (adam.mu, adam_out.mu),
        (adam.nu, adam_out.nu),
    ):
        for names, leaf, after in zip(axes, jax.tree.leaves(tree), jax.tree.leaves(kept), strict=True):
            sharding = jax.NamedSharding(mesh, expected(names, leaf.shape))
            assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), (names, leaf.sharding)
            assert after.is_equivalent_to(sharding, leaf.ndim), (names, after)
    kernel = state.params["blocks"]["ffn"]["fc1"]["kernel"]
    assert kernel.addressable_shards[0].data.size * pieces * mesh.shape["tensor"] == kernel.size


def check_no_activation_is_gathered(name, mesh, program):
    found = hlo.Program(program.as_text()).collectives
    # Forward, forward again in the backward pass, and back.
    exchanges = [c for c in found if c.kind == "all-to-all" and "shard_map" in c.where]
    assert sum(c.count for c in exchanges) == (6 * CFG.dit.layers if mesh["seq"] > 1 else 0)
    samples = BATCH // (mesh["data"] * mesh["fsdp"])
    tokens = -(-{"teacher": 72, "ode": 26 + 96}[name] // mesh["seq"])
    velocity = (samples, tokens, CFG.dit.patch**2 * CFG.dit.latent_channels)
    for c in found:
        if c.kind == "all-gather":
            activation = len(c.shape) > 2 and c.shape[-3:-1] == (samples, tokens)
            assert not activation or c.shape == velocity, (c.shape, c.where)


def test_bad_input():
    with pytest.raises(InputError, match="a batch of 8 can't be divided over data=1 x fsdp=3 devices"):
        stage("teacher", mesh="fsdp=3")
    with pytest.raises(InputError, match="'rows' is no axis"):
        stage("teacher", mesh="rows=2")
    with pytest.raises(InputError, match="cross_attention/k/bias: 128 heads can't be divided by the 5 devices"):
        abstract.specs(stage("teacher").parameters, {"data": 1, "fsdp": 1, "seq": 1, "tensor": 5})
