"""Stage `distill`: the few-step student learns from its own video by distribution matching (SPEC 6).

Each step rolls the student out without gradient and trains the critic on what came; every fifth step the
teacher and the critic also judge it, and the student moves by `replay.replay_gradient`. A run has one length
(5, 10, then 20 s), its teacher is of that length, and it starts from the run before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray

from relic_jax.config import ConfigError, DiTConfig, RelicConfig, first_difference, from_config_dict, latents_of
from relic_jax.errors import InputError
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.stream import rollout as stream
from relic_jax.train import checkpoint, collapse, dmd, loop
from relic_jax.train import optimizer as optimizers
from relic_jax.train.clips import Conditions, conditions
from relic_jax.train.latent_stage import LatentStage, arguments
from relic_jax.train.replay import Rollout, replay_gradient, roll_out
from relic_jax.train.stage import Scalars, State, TrainConfig, Trainer


@dataclasses.dataclass(frozen=True, eq=False)
class DistillStage(LatentStage):
    """See `stage.Stage`. `critic` is what the critic starts from."""

    teacher: Params
    critic: Params

    def trainer(self, key: PRNGKeyArray) -> Trainer:
        cfg, options = self.cfg, self.cfg.distill
        axes = module.logical_axes(DiT, self.critic_model.dit)
        optimizer = optimizers.make(cfg, self.decay_mask({}))
        critic_optimizer = optimizers.make(
            dataclasses.replace(cfg, learning_rate=options.critic_learning_rate), optimizers.matrices(axes)
        )

        def start(params: Params) -> State:
            critic = jax.tree.map(jnp.copy, self.critic)
            extra = {"critic": critic, "opt_state": critic_optimizer.init(critic)}
            return dataclasses.replace(loop.start(params, optimizer), extra=extra)

        def learn(state: State, teacher: Params, rollouts: Rollout, keys: Key[Array, "parts"]) -> tuple[State, Scalars]:
            gradient, scalars = self.student_gradient(state, teacher, rollouts, keys)
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            early = state.step < options.ema_start
            ema = jax.tree.map(
                lambda old, new: jnp.where(early, new, old + (1 - cfg.ema) * (new - old)), state.ema, params
            )
            scalars = {**scalars, "student_gradient_norm": optax.tree.norm(gradient)}
            return dataclasses.replace(state, params=params, ema=ema, opt_state=opt_state), scalars

        def rest(state: State, *_: Any) -> tuple[State, Scalars]:
            return state, dict.fromkeys(("dmd_gradient", "student_gradient_norm"), jnp.float32(jnp.nan))

        def step(state: State, teacher: Params, batch: Mapping[str, Array]) -> tuple[State, Scalars]:
            keys = jax.random.split(jax.random.fold_in(key, state.step), 3)
            rollouts = self.roll_outs(state.params, batch, keys[0])
            parts = rollouts.exit_step.shape[0]
            turn = (state.step + 1) % options.generator_every == 0  # the critic has learnt before the student does
            loss, gradient = self.critic_gradient(state.extra["critic"], rollouts, jax.random.split(keys[1], parts))
            state, scalars = jax.lax.cond(
                turn, learn, rest, state, teacher, rollouts, jax.random.split(keys[2], parts)
            )
            updates, opt_state = critic_optimizer.update(gradient, state.extra["opt_state"], state.extra["critic"])
            extra = {"critic": optax.apply_updates(state.extra["critic"], updates), "opt_state": opt_state}
            norms = (optax.tree.norm(gradient), scalars["student_gradient_norm"])
            video = jax.vmap(stream.join)(rollouts.clean).reshape(batch["latents"].shape)
            scalars = {
                "loss": loss,
                **collapse.measure(video, batch["latents"]),
                **scalars,
                "gradient_norm": jnp.hypot(norms[0], jnp.where(turn, norms[1], 0)),
                "exit_step": rollouts.exit_step[0].astype(jnp.float32),
            }
            return dataclasses.replace(state, step=state.step + 1, extra=extra), scalars

        jitted = jax.jit(step, donate_argnums=0)
        return Trainer(optimizer, start, lambda state, batch: jitted(state, self.teacher, batch))

    def check(self, means: Mapping[str, float]) -> None:
        collapse.check(means)

    def roll_outs(self, params: Params, batch: Mapping[str, Array], key: PRNGKeyArray) -> Rollout:
        """The student's video for each clip, some clips at a time: arrays have a leading axis of micro-batches."""
        cfg = self.cfg.model
        keys = jax.random.split(key)
        exit_step = jax.random.randint(keys[0], (), 0, len(cfg.stream.timesteps))
        student = cast_kernels(params, cfg.precision.compute)
        parts = {name: x.reshape(-1, self.cfg.distill.micro_batch, *x.shape[1:]) for name, x in batch.items()}

        def one(inputs: tuple[Mapping[str, Array], PRNGKeyArray]) -> Rollout:
            clips, key = inputs
            return roll_out(student, cfg, clips["latents"][:, 0], conditions(clips, cfg), key, exit_step)

        return jax.lax.map(one, (parts, jax.random.split(keys[1], len(parts["latents"]))))

    def critic_gradient(self, critic: Params, rollouts: Rollout, keys: Key[Array, "parts"]) -> tuple[Array, Params]:
        """The critic's loss on the student's video and its gradient, mean over micro-batches."""

        def loss(params: Params, rollout: Rollout, key: PRNGKeyArray) -> Float[Array, ""]:
            model = dmd.velocity(params, self.critic_model, checkpoint=self.cfg.recompute)
            return dmd.critic_loss(model, rollout.latents, rollout.given, key, self.cfg.distill.shift)

        return _mean(partial(jax.value_and_grad(loss), critic), (rollouts, keys))

    def student_gradient(
        self, state: State, teacher: Params, rollouts: Rollout, keys: Key[Array, "parts"]
    ) -> tuple[Params, Scalars]:
        """The student's gradient by replay, mean over micro-batches."""
        cfg, options = self.cfg.model, self.cfg.distill
        real = dmd.guided(dmd.velocity(teacher, self.teacher_model), options.guidance)
        fake = dmd.velocity(state.extra["critic"], self.critic_model)
        student = cast_kernels(state.params, cfg.precision.compute)

        def one(rollout: Rollout, key: PRNGKeyArray) -> tuple[Params, Scalars]:
            score = dmd.score_gradient(real, fake, rollout.latents, rollout.given, key, options.shift)
            count = score[:, 1:].size  # the loss is a mean over all numbers of the batch but the picture's
            blocks = stream.split(score / count, cfg.stream.block)
            gradient, _ = replay_gradient(student, cfg, rollout, blocks, checkpoint=self.cfg.recompute)
            return gradient, {"dmd_gradient": jnp.abs(score).sum() / count}

        return _mean(one, (rollouts, keys))

    def generate(self, params: Params, image: Float[Array, "B H W C"], given: Conditions, key: PRNGKeyArray) -> Array:
        """Latents of whole clips, streamed block by block as a session does."""
        cfg = self.cfg.model
        last = jnp.int32(len(cfg.stream.timesteps) - 1)
        return roll_out(cast_kernels(params, cfg.precision.compute), cfg, image, given, key, last).latents

    @property
    def teacher_model(self) -> RelicConfig:
        return dataclasses.replace(self.cfg.model, dit=self.cfg.distill.teacher_dit or self.cfg.model.dit)

    @property
    def critic_model(self) -> RelicConfig:
        return dataclasses.replace(self.teacher_model, dit=self.cfg.distill.critic_dit or self.teacher_model.dit)


def _mean[T](function: Callable[..., T], inputs: tuple) -> T:
    """The mean of what a function gives over the leading axis of its inputs, one at a time."""
    count = jax.tree.leaves(inputs)[0].shape[0]
    shapes = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], inputs))

    def add(total: T, x: tuple) -> tuple[T, None]:
        return jax.tree.map(jnp.add, total, function(*x)), None

    total, _ = jax.lax.scan(add, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), inputs)
    return jax.tree.map(lambda leaf: leaf / count, total)


def make(cfg: TrainConfig) -> DistillStage:
    """The stage, after the checks that need no compilation.

    Raises:
      ConfigError: there is no run to start from, or lengths or sizes don't go together.
      InputError: there is no teacher or critic that fits, or the teacher is shorter than the rollout; and see
        `latent_stage.arguments`.
    """
    options, length = cfg.distill, latents_of(cfg.frames, cfg.model.vae.temporal_stride)
    if not cfg.init_from:
        raise ConfigError(
            "config.init_from is empty: stage distill starts from the weights of stage ode, or of a shorter distill"
        )
    if not options.teacher:
        raise ConfigError("config.distill.teacher is empty: expected the workdir or safetensors file of a teacher")
    if length % cfg.model.stream.block:
        raise ConfigError(
            f"config.frames={cfg.frames} are {length} latents, expected a multiple of "
            f"model.stream.block={cfg.model.stream.block}"
        )
    if options.critic_dit is not None and not options.critic:
        raise ConfigError("config.distill.critic is empty: a critic of a size of its own needs weights to start from")
    if cfg.batch % options.micro_batch:
        raise ConfigError(f"config.batch={cfg.batch} is not a multiple of distill.micro_batch={options.micro_batch}")
    if cfg.schedule != "constant":
        raise ConfigError(f"config.schedule={cfg.schedule!r}: stage distill has a constant learning rate")
    if cfg.mesh:
        raise ConfigError(f"config.mesh={cfg.mesh!r}: stage distill runs on one device")
    _check_teacher(options.teacher, cfg, length)
    stage = DistillStage(*arguments(cfg, options.vae), teacher={}, critic={})
    teacher = checkpoint.load_params(options.teacher, module.abstract(DiT, stage.teacher_model.dit))
    critic = teacher
    if options.critic:
        critic = checkpoint.load_params(options.critic, module.abstract(DiT, stage.critic_model.dit))
    return dataclasses.replace(stage, teacher=teacher, critic=critic)


def _check_teacher(path: str, cfg: TrainConfig, length: int) -> None:
    """What the teacher's own configuration says of it, where that was kept with its weights."""
    values = checkpoint.recorded(path) or {}
    if "frames" not in values:
        return
    if latents_of(values["frames"], cfg.model.vae.temporal_stride) < length:
        raise InputError(
            f"{path}: the teacher was trained on clips of {values['frames']} frames and can't judge rollouts of "
            f"config.frames={cfg.frames}"
        )
    theirs = from_config_dict(DiTConfig, values["model"]["dit"])
    difference = first_difference(theirs, cfg.distill.teacher_dit or cfg.model.dit, "config.distill.teacher_dit")
    if difference is not None:
        field, trained, ours = difference
        raise InputError(f"{path}: the teacher was trained with {field}={trained!r}, this config has {ours!r}")
