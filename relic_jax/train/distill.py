"""Stage `distill`: the few-step student learns from its own video by distribution matching (SPEC 6).

Each step rolls the student out without gradient and trains the critic on what came; every fifth step the terms of the
loss say where each latent of that video should go (`terms`; the paper's only one is `score`: teacher against critic),
and the student moves by the replayed gradient. A run has one length (5, 10, then 20 s), its teacher is of that length,
and it starts from the run before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from relic_jax.config import ConfigError, at_least, require
from relic_jax.data.trajectories import check_teacher
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.parallel.mesh import MeshShape
from relic_jax.parallel.rules import constrain
from relic_jax.rng import Streams, each
from relic_jax.stream import rollout as stream
from relic_jax.train import abstract, clips, collapse, terms
from relic_jax.train import optimizer as optimizers
from relic_jax.train.causal import StreamingStage
from relic_jax.train.checkpoint import load_params
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.replay import replay_gradient, roll_out
from relic_jax.train.run import ClipRunConfig, Scalars, State
from relic_jax.train.terms import Sample, Term, score


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig(ClipRunConfig):
    """See `run.RunConfig`; `optimizer` is the student's.

    Fields:
      terms: of the student's loss, by name: `score`, and others if wanted (`train.terms`); None is off.
      critic_optimizer: the critic's. It starts from the teacher's weights.
      generator_every: steps; the student learns at every so many, the critic at each.
      micro_batch: clips that are rolled out together; gradients add up to `batch`.
      stop_on_collapse: else the measures of collapse are only logged.
    """

    terms: dict[str, Any]
    critic_optimizer: OptimizerConfig
    generator_every: int = 5
    micro_batch: int = 1
    stop_on_collapse: bool = True
    pose_drop: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "terms", terms.configs(self.terms))
        at_least(self, "config", 1, "generator_every", "micro_batch")
        require("score" in self.terms, "config.terms.score is missing: the critic learns for it")
        for name, of in (("optimizer", self.optimizer), ("critic_optimizer", self.critic_optimizer)):
            if of.schedule != "constant":
                raise ConfigError(f"config.{name}.schedule={of.schedule!r}: stage distill has a constant learning rate")
        if self.batch % self.micro_batch:
            raise ConfigError(f"config.batch={self.batch} is not a multiple of config.micro_batch={self.micro_batch}")
        shape = MeshShape.parse(self.mesh)
        if self.micro_batch % (shape.data * shape.fsdp):
            raise ConfigError(
                f"config.micro_batch={self.micro_batch} can't be divided over data={shape.data} x "
                f"fsdp={shape.fsdp} devices: expected a multiple of {shape.data * shape.fsdp}"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DistillState(State):
    """And the critic's float32 weights and optimizer."""

    critic: Params
    critic_opt_state: Any


class DistillStage(StreamingStage):
    """See `run.Stage`; frozen are the VAE and the teacher."""

    cfg: DistillConfig

    def step(
        self, state: DistillState, frozen: Any, batch: Mapping[str, Array], rng: Streams
    ) -> tuple[DistillState, Scalars]:
        """Roll out, train the critic; in the student's turn score its video, replay, and move it."""
        samples = self.roll_out(state.params, frozen, batch, rng)
        state, of_critic = self.update_critic(state, samples, rng)
        # Last in its turn of five, when the critic has caught up with what the student makes now.
        turn = (state.step + 1) % self.cfg.generator_every == 0
        given = state, frozen, samples, rng.key
        state, of_student = jax.lax.cond(turn, self.update_generator, self.skip_generator, *given)
        video = jax.vmap(stream.join)(samples.rollout.clean).reshape(batch["latents"].shape)
        norms = of_critic["critic_gradient_norm"], of_student["generator_gradient_norm"]
        return dataclasses.replace(state, step=state.step + 1), {
            **of_critic,
            **of_student,
            **collapse.measure(video, batch["latents"]),
            "gradient_norm": jnp.hypot(norms[0], jnp.where(turn, norms[1], 0)),
            "exit_step": samples.rollout.exit_step[0].astype(jnp.float32),
        }

    def roll_out(self, params: Params, frozen: Any, batch: Mapping[str, Array], rng: Streams) -> Sample:
        """The student's video for each clip, some clips at a time: arrays have a leading axis of micro-batches.

        One exit step is drawn for all of a step's rollouts (SPEC 6.1).
        """
        cfg = self.cfg.model
        exit_step = jax.random.randint(rng["exit_step"], (), 0, len(cfg.stream.timesteps))
        student = cast_kernels(params, cfg.precision.compute)
        parts = {name: x.reshape(-1, self.cfg.micro_batch, *x.shape[1:]) for name, x in batch.items()}

        def one(rows: dict[str, Array], rng: Streams) -> Sample:
            rows = jax.tree.map(lambda x: constrain(x, "batch"), rows)
            given = clips.drop(clips.conditions(rows, cfg), rng, pose=self.cfg.pose_drop)
            made = roll_out(student, cfg, rows["latents"][:, 0], given, rng["rollout"], exit_step)
            return Sample(made, self.score.view(made, rows, frozen["vae"], rng["sub_clip"]), rows)

        def numbered(inputs: tuple[dict[str, Array], PRNGKeyArray]) -> Sample:
            return one(inputs[0], Streams(inputs[1]))

        count = self.cfg.batch // self.cfg.micro_batch
        return jax.lax.map(numbered, (parts, each(rng["micro_batches"], count)))

    def update_critic(self, state: DistillState, samples: Sample, rng: Streams) -> tuple[DistillState, Scalars]:
        """The critic's step: flow matching on the student's video."""

        def loss(critic: Params, sample: Sample, key: PRNGKeyArray) -> Float[Array, ""]:
            return self.score.critic_loss(critic, sample.seen, key, checkpoint=self.cfg.recompute)

        of_one = functools.partial(jax.value_and_grad(loss), state.critic)
        value, gradient = _mean(of_one, samples, rng["critic"])
        critic, opt_state = optimizers.apply(self.critic_optimizer, gradient, state.critic_opt_state, state.critic)
        scalars = {"loss": value, "critic_gradient_norm": optimizers.norm(gradient)}
        return dataclasses.replace(state, critic=critic, critic_opt_state=opt_state), scalars

    def update_generator(
        self, state: DistillState, frozen: Any, samples: Sample, key: PRNGKeyArray
    ) -> tuple[DistillState, Scalars]:
        """The student's step; the number of the step goes on in `step`."""
        gradient, scalars = self.generator_gradient(state, frozen, samples, Streams(key))
        moved = self.update(state, gradient)
        scalars["generator_gradient_norm"] = optimizers.norm(gradient)
        return dataclasses.replace(state, **_fields(moved) | {"step": state.step}), scalars

    def skip_generator(
        self, state: DistillState, frozen: Any, samples: Sample, key: PRNGKeyArray
    ) -> tuple[DistillState, Scalars]:
        """What `update_generator` is at other steps: the same scalars, not measured."""
        one = jax.tree.map(lambda x: x[0], samples)
        models = {"teacher": frozen["teacher"], "critic": state.critic}
        measured = jax.eval_shape(lambda one, models: self.latent_gradient(one, models, Streams(key))[1], one, models)
        return state, dict.fromkeys((*measured, "generator_gradient_norm"), jnp.float32(jnp.nan))

    def generator_gradient(
        self, state: DistillState, frozen: Any, samples: Sample, rng: Streams
    ) -> tuple[Params, Scalars]:
        """The gradient of the sum of the terms by the student's parameters: what they say of its video, replayed."""
        cfg = self.cfg.model
        student = cast_kernels(state.params, cfg.precision.compute)
        models = {"teacher": frozen["teacher"], "critic": state.critic}

        def one(sample: Sample, key: PRNGKeyArray) -> tuple[Params, Scalars]:
            wanted, scalars = self.latent_gradient(sample, models, Streams(key))
            blocks = stream.split(wanted / wanted[:, 1:].size, cfg.stream.block)  # a mean, the picture left out
            gradient, _ = replay_gradient(student, cfg, sample.rollout, blocks, checkpoint=self.cfg.recompute)
            return gradient, scalars

        return _mean(one, samples, rng["terms"])

    def latent_gradient(
        self, sample: Sample, models: Mapping[str, Params], rng: Streams
    ) -> tuple[Float[Array, "B L H W C"], Scalars]:
        """The sum of the terms' gradients by each latent of the student's video, and the scalars of all terms."""
        wanted, scalars = jnp.zeros_like(sample.rollout.latents), {}
        for name, term in self.terms.items():
            gradient, measured = term.gradient(sample, models, rng[name])
            wanted, scalars = wanted + gradient, scalars | measured
        return wanted, scalars

    def abstract(self) -> abstract.Arguments:
        given = super().abstract()
        return dataclasses.replace(given, frozen={**given.frozen, "teacher": self.critic_parameters})

    def abstract_state(self) -> DistillState:
        critic, state = self.critic_parameters, super().abstract_state()
        moments = abstract.moments(self.critic_optimizer, critic)
        return DistillState(**_fields(state), critic=critic, critic_opt_state=moments)

    def init(self, params: Params, frozen: Any) -> DistillState:
        critic, state = jax.tree.map(jnp.copy, frozen["teacher"]), super().init(params, frozen)
        return DistillState(**_fields(state), critic=critic, critic_opt_state=self.critic_optimizer.init(critic))

    def load(self, shapes: Any) -> Any:
        return {**super().load(shapes), "teacher": load_params(self.score.cfg.teacher, shapes["teacher"])}

    def check(self, means: Mapping[str, float]) -> None:
        if self.cfg.stop_on_collapse:
            collapse.check(means)

    def check_inputs(self) -> None:
        """See `StreamingStage`.

        Raises:
          ConfigError: there is no run to start from, no teacher, or a sub-clip doesn't fit the rollout.
          InputError: the teacher is shorter than what it sees, or another transformer.
        """
        cfg, of_score = self.cfg, self.score.cfg
        if not cfg.init_from:
            raise ConfigError(
                "config.init_from is empty: stage distill starts from the weights of stage ode, or of a shorter distill"
            )
        if not of_score.teacher:
            raise ConfigError("config.terms.score.teacher is empty: expected a teacher's workdir or safetensors file")
        latents = of_score.sub_clip or self.length
        if latents > self.length:
            raise ConfigError(
                f"config.terms.score.sub_clip={of_score.sub_clip}: expected at most {self.length}, the latents of "
                f"config.frames={cfg.frames}"
            )
        dit = self.score.teacher_model.dit
        check_teacher(of_score.teacher, dit, cfg.model.vae.frames_of(latents), "config.terms.score.teacher_dit")
        super().check_inputs()
        load_params(of_score.teacher, abstract.place(self.critic_parameters, None))

    @functools.cached_property
    def terms(self) -> dict[str, Term]:
        return terms.make(self.cfg.terms, self.cfg.model)

    @property
    def score(self) -> score.Term:
        """The term that the critic learns for."""
        term = self.terms["score"]
        assert isinstance(term, score.Term)
        return term

    @property
    def critic_parameters(self) -> Any:
        """The teacher's as well."""
        return abstract.parameters(DiT, self.score.teacher_model.dit)

    @property
    def critic_optimizer(self) -> optax.GradientTransformation:
        return optimizers.make(self.cfg.critic_optimizer, self.cfg.steps, self.critic_parameters)


def _fields(state: State) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(State)}


def _mean[T](function: Callable[..., T], stacked: Any, key: PRNGKeyArray) -> T:
    """The mean of what a function gives for each of what is stacked, one at a time; its last argument is a key."""
    inputs = (stacked, each(key, jax.tree.leaves(stacked)[0].shape[0]))
    shapes = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], inputs))

    def add(total: T, one: tuple) -> tuple[T, None]:
        return jax.tree.map(jnp.add, total, function(*one)), None

    total, _ = jax.lax.scan(add, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), inputs)
    return jax.tree.map(lambda leaf: leaf / len(inputs[-1]), total)
