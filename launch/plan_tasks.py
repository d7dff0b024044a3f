"""The programs that `launch.plan` compiles: the real jitted functions, with shapes where arrays would be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from relic_jax.config import RelicConfig
from relic_jax.errors import InputError
from relic_jax.models import module, vae
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.parallel import halo
from relic_jax.parallel.mesh import MeshShape
from relic_jax.parallel.rules import SERVING, check_batch
from relic_jax.stream import rollout, sharded
from relic_jax.train import loop, openings, trajectories
from relic_jax.train import optimizer as optimizers
from relic_jax.train import sharded as train_sharded
from relic_jax.train.distill import DistillStage
from relic_jax.train.latent_stage import LatentStage
from relic_jax.train.ode import OdeStage
from relic_jax.train.stage import DistillOptions, OdeOptions, State, TeacherOptions, TrainConfig
from relic_jax.train.teacher import TeacherStage
from relic_jax.train.trajectories import TrajectoryConfig

_ITERATIONS = 4000  # of a training run that only a model's config describes; the paper's 20 s teacher (SPEC 3)


Config = RelicConfig | TrainConfig | TrajectoryConfig


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
    image = jax.ShapeDtypeStruct((batch, *cfg.latent_size, cfg.dit.latent_channels), jnp.float32)
    text = jax.ShapeDtypeStruct((batch, cfg.dit.text_len, cfg.dit.text_dim), jnp.float32)
    state = jax.eval_shape(lambda p, i, t: rollout.start(p, cfg, i, t, jax.random.key(0)), weights, image, text)
    specs = jax.tree_util.tree_map_with_path(sharded.state_spec, state)
    frames = cfg.stream.block * rollout.FRAMES_PER_LATENT
    actions = jax.ShapeDtypeStruct((batch, frames, 13), jnp.float32)
    arguments = (weights, _placed(mesh, state, specs), _placed(mesh, actions, SERVING.spec(("batch",))))
    kinds = {"weights": weights, "cache": arguments[1].cache}
    return Program(sharded.step(mesh, cfg, batch), arguments, kinds, "block", frames=batch * frames)


def teacher(cfg: Config, mesh: Mesh, batch: int) -> Program:
    """A step of stage `teacher`: loss, gradient, AdamW, moving average."""
    return _supervised(cfg, mesh, batch, TeacherStage, "teacher", teacher=TeacherOptions())


def ode(cfg: Config, mesh: Mesh, batch: int) -> Program:
    """A step of stage `ode`: hybrid forcing on trajectories of the whole horizon."""
    return _supervised(cfg, mesh, batch, OdeStage, "ode", ode=OdeOptions())


def distill(cfg: Config, mesh: Mesh, batch: int) -> Program:
    """A step of stage `distill`: rollout, critic's update, and the student's by replay."""
    each = mesh.shape["data"] * mesh.shape["fsdp"]
    run = _run(cfg, mesh, batch, "distill", betas=(0.0, 0.999), warmup=0, distill=DistillOptions(micro_batch=each))
    held_out = _clips(run.model, run.frames, 1) if run.distill.steadiness_bands else {}
    held_out = {name: jnp.zeros(x.shape) for name, x in held_out.items()}  # steadiness has constants of theirs
    stage = DistillStage(run, {}, held_out, teacher={}, critic={})
    student, critic = module.abstract(DiT, run.model.dit), module.abstract(DiT, stage.critic_model.dit)
    shapes = jax.eval_shape(lambda p, c: stage.start(p, c).trees(), student, critic)
    dit = stage.teacher_model.dit
    teacher = train_sharded.placed(
        mesh,
        module.abstract(DiT, dit),
        train_sharded.weights(dit, mesh.shape),
        on_host=run.distill.offload_teacher,
    )
    state, samples, kinds = _state(run, stage, stage.optimizers[0], shapes, mesh)
    options, arguments = run.distill, [state, teacher, samples]
    if options.openings:
        beginnings = _clips(run.model, run.model.vae.frames_of(options.openings_latents), options.openings_batch)
        arguments[2] = openings.join(samples, _placed(mesh, beginnings, SERVING.spec(("batch",))))
    if options.judged_latents:
        arguments.append(_placed(mesh, module.abstract(vae.VAE, run.model.vae), PartitionSpec()))
    return Program(
        stage.make_step(jax.random.key(0)),
        tuple(arguments),
        kinds | {"critic": state.extra, "teacher": teacher, "batch": arguments[2]},
        "step",
        calls=run.steps,
        trips=len(run.model.stream.timesteps),
        dear_every=run.distill.generator_every,
    )


def ode_data(cfg: Config, mesh: Mesh, batch: int) -> Program:
    """All steps of a few of the teacher's trajectories, which the devices divide."""
    if isinstance(cfg, TrainConfig):
        raise InputError(f"the config describes stage {cfg.stage}, the task is ode_data")
    if isinstance(cfg, RelicConfig):
        cfg = TrajectoryConfig("ode_data", cfg, "", "", cfg.vae.frames_of(cfg.memory.horizon), clips=1)
    check_batch(batch, mesh.shape)
    weights = _placed(mesh, _serving_weights(cfg.model), PartitionSpec())
    samples = _placed(mesh, _clips(cfg.model, cfg.frames, batch), SERVING.spec(("batch",)))
    numbers = _placed(mesh, jax.ShapeDtypeStruct((batch,), jnp.int32), SERVING.spec(("batch",)))
    return Program(
        jax.jit(lambda params, clips, numbers: trajectories.solve(params, cfg, clips, numbers)),
        (weights, samples, numbers),
        {"weights": weights, "batch": samples},
        "batch",
        frames=batch * cfg.frames,
    )


def _supervised(cfg: Config, mesh: Mesh, batch: int, kind: type[LatentStage], name: str, **options: Any) -> Program:
    run = _run(cfg, mesh, batch, name, **options)
    stage = kind(run, {}, {})
    optimizer = optimizers.make(run, stage.decay_mask({}))
    shapes = jax.eval_shape(lambda p: loop.start(p, optimizer).trees(), module.abstract(DiT, run.model.dit))
    state, samples, kinds = _state(run, stage, optimizer, shapes, mesh)
    step = loop.make_step(stage, optimizer, run, jax.random.key(0))
    return Program(step, (state, samples), kinds, "step", calls=run.steps)


def _run(cfg: Config, mesh: Mesh, batch: int, name: str, **options: Any) -> TrainConfig:
    """The run that a config describes, or one of the whole horizon for a model alone."""
    if not isinstance(cfg, RelicConfig):
        if cfg.stage != name:
            raise InputError(f"the config describes stage {cfg.stage}, the task is {name}")
        return dataclasses.replace(cfg, batch=batch, mesh=_text(mesh))
    return TrainConfig(
        stage=name, model=cfg, data="", data_val="", steps=_ITERATIONS, batch=batch, learning_rate=1e-5,
        frames=cfg.vae.frames_of(cfg.memory.horizon), mesh=_text(mesh), recompute=True, schedule="constant", **options,
    )  # fmt: skip


def _state(
    cfg: TrainConfig, stage: LatentStage, optimizer: optax.GradientTransformation, shapes: dict[str, Any], mesh: Mesh
) -> tuple[State, Any, dict[str, Any]]:
    """A run's state and a batch, placed, and both by what they are."""
    trees = train_sharded.abstract(shapes, stage, optimizer, mesh)
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    clips = _clips(cfg.model, cfg.frames, cfg.batch, points=cfg.stage == "ode")
    samples = _placed(mesh, clips, SERVING.spec(("batch",)))
    kinds = {"weights": trees["params"], "ema": trees["ema"], "optimizer": trees["opt_state"], "batch": samples}
    return State(**trees, step=count), samples, kinds


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
    "stream": stream, "teacher": teacher, "ode_data": ode_data, "ode": ode, "distill": distill, "vae": decode,
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


def _clips(model: RelicConfig, frames: int, batch: int, points: bool = False) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of `data.loader.latent_batches`; `points` are those of a trajectory."""
    shapes = {
        "latents": (model.vae.latents_of(frames), *model.latent_size, model.dit.latent_channels),
        "text": (model.text.length, model.text.dim),
        "actions": (frames, 13),
        "rotations": (frames, 3, 3),
        "positions": (frames, 3),
        "unit": (),
    }
    if points:
        times = len(model.stream.timesteps)
        shapes["trajectory"], shapes["timesteps"] = (shapes["latents"][0], times, *shapes["latents"][1:]), (times,)
    return {name: jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for name, shape in shapes.items()}


def _placed(mesh: Mesh, tree: Any, specs: Any) -> Any:
    """The shapes of a tree with their place; one partition stands for all leaves."""
    if isinstance(specs, PartitionSpec):
        specs = jax.tree.map(lambda _: specs, tree)
    return jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)), tree, specs
    )
