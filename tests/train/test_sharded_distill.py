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
from relic_jax.train import openings, sharded
from relic_jax.train.distill import DistillStage
from relic_jax.train.stage import DistillOptions, TrainConfig
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
RUN = TrainConfig(
    stage="distill", model=CFG, data="", data_val="", steps=2, batch=BATCH, frames=frames_of(LATENTS),
    learning_rate=1e-4, warmup=0, schedule="constant", betas=(0.0, 0.999), recompute=True,
    distill=DistillOptions(critic_learning_rate=1e-4, generator_every=1, micro_batch=BATCH),
)  # fmt: skip
KEY = jax.random.key(4)
# A program takes a minute to compile: the mesh that divides samples, tokens and weights stands for all in CI.
EVERY_MESH = [pytest.param(text, marks=[] if text == "fsdp=2,seq=4" else pytest.mark.slow) for text in MESHES]

OFFLOADED = "fsdp=8"  # there the teacher lies in the host's memory


# Beside the clips openings, and in the state running means.
MORE = dataclasses.replace(
    RUN.distill, openings=2.0, openings_data="none", openings_batch=BATCH, openings_latents=4,
    steadiness=5.0, steadiness_latents=2, steadiness_bands=2,
)  # fmt: skip


def stage_of(options):
    return DistillStage(dataclasses.replace(RUN, distill=options), {}, clips(LATENTS), teacher={}, critic={})


def batch_of(options):
    return openings.join(clips(LATENTS), clips(options.openings_latents) if options.openings else {})


@functools.cache
def one_device(options=RUN.distill):
    """State and scalars after a step."""
    stage = stage_of(options)
    given = stage.start(random_weights(), random_weights(2)), random_weights(1), batch_of(options)
    state, scalars = compile_quickly(stage.make_step(KEY), *given)(*given)
    return jax.device_get(state.trees()), jax.device_get(scalars)


@functools.cache
def compiled(text, options=RUN.distill):
    """On a mesh: the program of a step, and what it is given."""
    mesh, options = make(text), dataclasses.replace(options, offload_teacher=text == OFFLOADED)
    shapes = sharded.placed(
        mesh, module.abstract(DiT, CFG.dit), sharded.weights(CFG.dit, mesh.shape), on_host=options.offload_teacher
    )
    place = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    teacher, critic = (jax.device_put(random_weights(seed), place) for seed in (1, 2))
    stage = stage_of(options)
    with jax.set_mesh(mesh):
        keep = sharded.keeper(stage, stage.optimizers[0])
        state = jax.jit(lambda *weights: keep(stage.start(*weights)))(random_weights(), critic)
        batch = {field: divided(mesh, x) for field, x in batch_of(options).items()}
        program = compile_quickly(stage.make_step(KEY), state, teacher, batch)
    return program, (state, teacher, batch)


@pytest.mark.parametrize("options", [RUN.distill, MORE], ids=["plain", "openings and running means"])
@pytest.mark.parametrize("text", EVERY_MESH)
def test_step_equals_one_device(text, options):
    """Adam without first moment: `mu` is the gradient, of the student by replay and of the critic."""
    program, (state, *others) = compiled(text, options)
    check_same(program(jax.tree.map(jnp.copy, state), *others), one_device(options))


@pytest.mark.parametrize("text", EVERY_MESH)
def test_nothing_is_gathered_but_weights(text):
    mesh, (program, _) = make(text).shape, compiled(text)
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


@pytest.mark.parametrize("text", EVERY_MESH)
def test_critic_and_moments_lie_where_their_axes_say(text):
    mesh = make(text)
    program, (state, teacher, _) = compiled(text)
    with untyped():
        out = program.output_shardings[0]
    axes = jax.tree.leaves(module.logical_axes(DiT, CFG.dit), is_leaf=lambda x: isinstance(x, tuple))
    pieces = mesh.shape["fsdp"] * mesh.shape["seq"]
    adam, adam_out = state.extra["opt_state"][1][0], out.extra["opt_state"][1][0]
    critic = state.extra["critic"], out.extra["critic"]
    for tree, after in ((teacher, None), critic, (adam.mu, adam_out.mu), (adam.nu, adam_out.nu)):
        for i, (names, leaf) in enumerate(zip(axes, jax.tree.leaves(tree), strict=True)):
            matrix = len([n for n in names if n != "layers"]) > 1
            sides = [
                ("fsdp", "seq") if n == "embed" and matrix and size % pieces == 0
                else "tensor" if n in ("heads", "mlp")
                else None
                for n, size in zip(names, leaf.shape, strict=True)
            ]  # fmt: skip
            place = jax.NamedSharding(mesh, P(*sides))
            if tree is teacher and text == OFFLOADED:
                place = place.with_memory_kind("pinned_host")
            assert leaf.sharding.is_equivalent_to(place, leaf.ndim), (names, leaf.sharding)
            assert after is None or jax.tree.leaves(after)[i].is_equivalent_to(place, leaf.ndim)
