"""A step of stage `distill` (rollout, critic, replay) on eight virtual devices against the step on one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.parallel import hlo
from relic_jax.train import abstract, loop
from relic_jax.train.distill import DistillConfig, DistillStage
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.terms import regression, score
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

LATENTS = 6  # three blocks: the last one has memory
BLOCKS = LATENTS // CFG.stream.block
ADAM = OptimizerConfig(learning_rate=1e-4, betas=(0.0, 0.999))
STAGE = DistillStage(
    DistillConfig(
        stage="distill", model=CFG, data="", data_val="", steps=2, batch=BATCH, micro_batch=BATCH,
        frames=frames_of(LATENTS), optimizer=ADAM, critic_optimizer=ADAM, generator_every=1, recompute=True,
        terms={"score": score.Config(teacher=""), "regression": regression.Config(weight=0.5, latents=3)},
    )
)  # fmt: skip
# A program takes a minute to compile: the mesh that divides samples, tokens and weights stands for all in CI.
EVERY_MESH = [pytest.param(text, marks=[] if text == "fsdp=2,seq=4" else pytest.mark.slow) for text in MESHES]


def make_step():
    return loop.make_step(STAGE, jax.random.key(4))


def state_of(params, teacher):
    """The state before the first step, but with a critic that differs from the teacher."""
    return dataclasses.replace(STAGE.init(params, {"teacher": teacher}), critic=random_weights(2))


@functools.cache
def one_device():
    """State and scalars after a step."""
    frozen = {"teacher": random_weights(1), "vae": {}}
    given = state_of(random_weights(), frozen["teacher"]), frozen, clips(LATENTS)
    state, scalars = compile_quickly(make_step(), *given)(*given)
    return jax.device_get(state.trees()), jax.device_get(scalars)


def compiled(text):
    """On a mesh: the program of a step, and what it is given."""
    mesh = make(text)
    with untyped():
        places = jax.tree.map(lambda leaf: leaf.sharding, abstract.place(STAGE.abstract_state(), mesh))
    frozen = {"teacher": jax.device_put(random_weights(1), places.critic), "vae": {}}
    with jax.set_mesh(mesh):
        begin = jax.jit(lambda *given: jax.tree.leaves(state_of(*given)), out_shardings=jax.tree.leaves(places))
        state = jax.tree.unflatten(jax.tree.structure(places), begin(random_weights(), frozen["teacher"]))
        batch = {field: divided(mesh, x) for field, x in clips(LATENTS).items()}
        program = compile_quickly(make_step(), state, frozen, batch)
    return program, (state, frozen, batch)


@pytest.mark.parametrize("text", EVERY_MESH)
def test_step_equals_one_device_lies_where_it_should_and_gathers_weights_alone(text):
    """One test of three: compiling the program is all the work. Adam without first moment: `mu` is the gradient."""
    program, (state, *others) = compiled(text)
    check_nothing_is_gathered_but_weights(make(text).shape, program)
    check_critic_and_moments_lie_where_their_axes_say(make(text), program, state, others[0])
    check_same(program(jax.tree.map(jnp.copy, state), *others), one_device())


def check_nothing_is_gathered_but_weights(mesh, program):
    found = hlo.Program(program.as_text(), trips=len(CFG.stream.timesteps)).collectives
    # Rollout: a block's evaluations, and two that write it. Critic and replay: forward, again in the backward pass,
    # and back; the replay writes its blocks as well. Score: the teacher with and without text, the critic.
    evaluations = BLOCKS * (len(CFG.stream.timesteps) + 2) + 3 + 3 + BLOCKS * (3 + 2)
    exchanges = [c for c in found if c.kind == "all-to-all" and "shard_map" in c.where]
    assert sum(c.count for c in exchanges) == (2 * CFG.dit.layers * evaluations if mesh["seq"] > 1 else 0)
    samples, heads = BATCH // (mesh["data"] * mesh["fsdp"]), CFG.dit.heads // (mesh["seq"] * mesh["tensor"])
    tokens = {-(-n // mesh["seq"]) for n in (24 * CFG.stream.block, 24 * LATENTS)}
    velocity = CFG.dit.patch**2 * CFG.dit.latent_channels
    for c in found:
        if c.kind == "all-gather":
            rows = len(c.shape) > 2 and c.shape[-3] == samples and c.shape[-2] in tokens
            activation = rows and c.shape[-1] > CFG.dit.freq_dim  # of a timestep: latents can be as few as tokens
            assert not activation or c.shape[-1] == velocity, (c.shape, c.where)
            cached = len(c.shape) > 3 and c.shape[-2:] == (heads, CFG.dit.head_dim)
            assert not cached, (c.shape, c.where)


def check_critic_and_moments_lie_where_their_axes_say(mesh, program, state, frozen):
    with untyped():
        out = program.output_shardings[0]
    axes = jax.tree.leaves(module.logical_axes(DiT, CFG.dit), is_leaf=lambda x: isinstance(x, tuple))
    pieces = mesh.shape["fsdp"] * mesh.shape["seq"]
    adam, adam_out = state.critic_opt_state[1][0], out.critic_opt_state[1][0]
    critic = state.critic, out.critic
    for tree, after in ((frozen["teacher"], None), critic, (adam.mu, adam_out.mu), (adam.nu, adam_out.nu)):
        for i, (names, leaf) in enumerate(zip(axes, jax.tree.leaves(tree), strict=True)):
            matrix = len([n for n in names if n != "layers"]) > 1
            sides = [
                ("fsdp", "seq") if n == "embed" and matrix and size % pieces == 0
                else "tensor" if n in ("heads", "mlp")
                else None
                for n, size in zip(names, leaf.shape, strict=True)
            ]  # fmt: skip
            place = jax.NamedSharding(mesh, P(*sides))
            assert leaf.sharding.is_equivalent_to(place, leaf.ndim), (names, leaf.sharding)
            assert after is None or jax.tree.leaves(after)[i].is_equivalent_to(place, leaf.ndim)
