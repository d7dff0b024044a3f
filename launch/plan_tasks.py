"""The programs that `launch.plan` compiles: the real jitted functions, with shapes where arrays would be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from relic_jax.config import RelicConfig
from relic_jax.data import trajectories
from relic_jax.data.trajectories import TrajectoryConfig
from relic_jax.errors import InputError
from relic_jax.models import module, vae
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.parallel import halo
from relic_jax.parallel.mesh import MeshShape
from relic_jax.parallel.rules import SERVING, check_batch
from relic_jax.stream import rollout, sharded
from relic_jax.train import abstract, clips, loop, run
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.run import RunConfig
from relic_jax.train.terms import score

_ITERATIONS = 4000  # of a training run that only a model's config describes; the paper's 20 s teacher (SPEC 3)

Config = RelicConfig | RunConfig | TrajectoryConfig


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function, its arguments as shapes on a mesh, and what one call of it is good for."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    kinds: dict[str, Any]  # parts of the arguments by what they are: weights, optimizer, ema, cache
    unit: str
    frames: int = 0  # of video that a call makes
    calls: int = 0  # that a whole training takes
    trips: int = 1  # of a loop whose length is drawn when it runs: as many as there can be
    dear_every: int = 1  # calls: the others leave the longest branch out


def stream(cfg: Config, mesh: Mesh, batch: int) -> Program:
    """A block of `stream.step`, memory full."""
    cfg = _model(cfg)
    weights = _placed(mesh, _serving_weights(cfg), sharded.weight_specs(mesh, cfg))
    picture = jax.ShapeDtypeStruct((batch, *cfg.latent_size, cfg.dit.latent_channels), jnp.float32)
    text = jax.ShapeDtypeStruct((batch, cfg.dit.text_len, cfg.dit.text_dim), jnp.float32)
    state = jax.eval_shape(lambda picture, t: rollout.start(cfg, picture, t, jax.random.key(0)), picture, text)
    specs = jax.tree_util.tree_map_with_path(sharded.state_spec, state)
    frames = cfg.stream.block * rollout.FRAMES_PER_LATENT
    actions = jax.ShapeDtypeStruct((batch, frames, 13), jnp.float32)
    arguments = (weights, _placed(mesh, state, specs), _placed(mesh, actions, SERVING.spec(("batch",))))
    kinds = {"weights": weights, "cache": arguments[1].cache}
    return Program(sharded.step(mesh, cfg, batch), arguments, kinds, "block", frames=batch * frames)


def training(stage: str) -> Callable[[Config, Mesh, int], Program]:
    """A step of a training stage: loss, gradient, AdamW, moving average; of `distill` rollout, critic and replay."""

    def program(cfg: Config, mesh: Mesh, batch: int) -> Program:
        of = run.make(_run(cfg, mesh, batch, stage), check=False)
        shapes = of.abstract()
        state, frozen, samples = (abstract.place(tree, mesh) for tree in (shapes.state, shapes.frozen, shapes.batch))
        kinds = {"weights": state.params, "ema": state.ema, "optimizer": state.opt_state, "batch": samples, **frozen}
        distilled = {}
        if stage == "distill":
            kinds["critic"] = state.critic, state.critic_opt_state
            distilled = {"trips": len(of.cfg.model.stream.timesteps), "dear_every": of.cfg.generator_every}
        step = loop.make_step(of, jax.random.key(0))
        return Program(step, (state, frozen, samples), kinds, "step", calls=of.cfg.steps, **distilled)

    return program


def ode_data(cfg: Config, mesh: Mesh, batch: int) -> Program:
    """All steps of a few of the teacher's trajectories, which the devices divide."""
    if isinstance(cfg, RunConfig):
        raise InputError(f"the config describes stage {cfg.stage}, the task is ode_data")
    if isinstance(cfg, RelicConfig):
        cfg = TrajectoryConfig("ode_data", cfg, "", "", cfg.vae.frames_of(cfg.memory.horizon), clips=1)
    check_batch(batch, mesh.shape)
    weights = _placed(mesh, _serving_weights(cfg.model), PartitionSpec())
    samples = _placed(mesh, clips.shapes(cfg.model, cfg.frames, batch), SERVING.spec(("batch",)))
    numbers = _placed(mesh, jax.ShapeDtypeStruct((batch,), jnp.int32), SERVING.spec(("batch",)))
    return Program(
        jax.jit(lambda params, clips, numbers: trajectories.solve(params, cfg, clips, numbers)),
        (weights, samples, numbers),
        {"weights": weights, "batch": samples},
        "batch",
        frames=batch * cfg.frames,
    )


def _run(cfg: Config, mesh: Mesh, batch: int, stage: str) -> RunConfig:
    """The run that a config describes, or one of the whole horizon for a model alone."""
    if not isinstance(cfg, RelicConfig):
        if cfg.stage != stage:
            raise InputError(f"the config describes stage {cfg.stage}, the task is {stage}")
        assert isinstance(cfg, RunConfig)
        return dataclasses.replace(cfg, batch=batch, mesh=_text(mesh))
    adam = OptimizerConfig(learning_rate=1e-5)
    distilled: dict[str, Any] = {}
    if stage == "distill":
        each = mesh.shape["data"] * mesh.shape["fsdp"]
        distilled = {"terms": {"score": score.Config(teacher="")}, "critic_optimizer": adam, "micro_batch": each}
    return run.config_class(stage)(
        stage=stage, model=cfg, data="", data_val="", steps=_ITERATIONS, batch=batch, optimizer=adam,
        frames=cfg.vae.frames_of(cfg.memory.horizon), mesh=_text(mesh), recompute=True, **distilled,
    )  # fmt: skip


def decode(cfg: Config, mesh: Mesh, batch: int) -> Program:
    """The VAE's decoder on the latents of one block, columns divided over `seq`."""
    cfg = _model(cfg)
    check_batch(batch, mesh.shape)
    dtype, count = jnp.dtype(cfg.precision.compute), cfg.stream.block
    columns = PartitionSpec(*SERVING.spec(("batch", None, None)), "seq")
    weights = _placed(mesh, module.abstract(vae.VAE, cfg.vae), PartitionSpec())
    cache = jax.eval_shape(lambda: vae.init_decode_cache(cfg.vae, batch, *cfg.latent_size, dtype))
    cache = _placed(mesh, cache, jax.tree.map(lambda leaf: columns if leaf.ndim else PartitionSpec(), cache))
    shape = (batch, count, *cfg.latent_size, cfg.vae.latent_channels)
    latents = _placed(mesh, jax.ShapeDtypeStruct(shape, dtype), columns)
    function = halo.divided(lambda p, c, z: vae.decode(p, cfg.vae, c, z), mesh)
    return Program(
        jax.jit(function, donate_argnums=1),
        (weights, cache, latents),
        {"weights": weights, "cache": cache},
        "block",
        frames=batch * count * cfg.vae.temporal_stride,
    )


TASKS: dict[str, Callable[..., Program]] = {
    "stream": stream, "teacher": training("teacher"), "ode_data": ode_data, "ode": training("ode"),
    "distill": training("distill"), "vae": decode,
}  # fmt: skip


def meshes(task: str, devices: int) -> list[MeshShape]:
    """All shapes worth trying: a stream is one session, so `data` and `fsdp` would only idle."""
    sides = [n for n in range(1, devices + 1) if devices % n == 0]
    shapes = [
        MeshShape(data, fsdp, seq, devices // (data * fsdp * seq))
        for data in sides
        for fsdp in sides
        for seq in sides
        if devices % (data * fsdp * seq) == 0
    ]
    if task == "stream":
        return [shape for shape in shapes if shape.data == shape.fsdp == 1]
    if task == "ode_data":
        return [shape for shape in shapes if shape.data == devices]
    if task == "vae":
        return [shape for shape in shapes if shape.seq == devices]
    return [shape for shape in shapes if shape.data == 1]  # copies of the optimizer's state gain nothing


def device_bytes(tree: Any) -> int:
    """What a device holds in its own memory of a tree of placed shapes."""
    leaves = [
        leaf
        for leaf in jax.tree.leaves(tree)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended) and leaf.sharding.memory_kind != "pinned_host"
    ]
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _model(cfg: Config) -> RelicConfig:
    return cfg if isinstance(cfg, RelicConfig) else cfg.model


def _text(mesh: Mesh) -> str:
    return ",".join(f"{name}={size}" for name, size in mesh.shape.items())


def _serving_weights(cfg: RelicConfig) -> Any:
    return jax.eval_shape(partial(cast_kernels, dtype=cfg.precision.compute), module.abstract(DiT, cfg.dit))


def _placed(mesh: Mesh, tree: Any, specs: Any) -> Any:
    """The shapes of a tree with their place; one partition stands for all leaves."""
    if isinstance(specs, PartitionSpec):
        specs = jax.tree.map(lambda _: specs, tree)
    return jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)), tree, specs
    )
