"""Stage `distill`: the few-step student learns from its own video by distribution matching (SPEC 6).

Each step rolls the student out without gradient and trains the critic on what came; every fifth step the
teacher and the critic also judge it, and the student moves by `replay.replay_gradient`. A run has one length
(5, 10, then 20 s), its teacher is of that length, and it starts from the run before. Beyond that, the teacher
judges stretches (`distill.judged_latents`) of rollouts that outlast memory.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from relic_jax.config import ConfigError, DiTConfig, RelicConfig
from relic_jax.data import loader
from relic_jax.data.part import WHOLE, Part
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.parallel import mesh as meshes
from relic_jax.parallel.rules import constrain
from relic_jax.stream import rollout as stream
from relic_jax.train import checkpoint, collapse, dmd, loop, openings, sharded, steadiness, stretch
from relic_jax.train import optimizer as optimizers
from relic_jax.train.clips import Conditions, conditions, drop, revisits
from relic_jax.train.host import everywhere
from relic_jax.train.latent_stage import LatentStage, arguments
from relic_jax.train.replay import Rollout, replay_gradient, roll_out
from relic_jax.train.stage import Batches, Scalars, State, TrainConfig, Trainer
from relic_jax.train.trajectories import check_teacher


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Judged:
    """What teacher and critic see of rollouts: all of each, or a stretch. Leading axes as in `Rollout`."""

    latents: Float[Array, "*S B l H W C"]
    given: Conditions
    start: Int[Array, "*S"]  # the first latent's number


@dataclasses.dataclass(frozen=True, eq=False)
class DistillStage(LatentStage):
    """See `stage.Stage`. `critic` is what the critic starts from."""

    teacher: Params
    critic: Params

    def batches(self, seed: int, part: Part = WHOLE) -> Batches:
        clips, options = super().batches(seed, part), self.cfg.distill
        if not options.openings:
            return clips
        beginnings = loader.latent_batches(
            options.openings_data,
            batch=options.openings_batch,
            seed=seed,
            latents=options.openings_latents,
            balanced=self.cfg.balance_actions,
            part=part,
        )
        return openings.Beside(clips, beginnings)

    def trainer(self, key: PRNGKeyArray) -> Trainer:
        step = self.make_step(key)
        decoder = self._decoder() if self.cfg.distill.judged_latents else None
        return Trainer(
            self.optimizers[0],
            self.start,
            lambda state, batch: step(state, self.teacher, batch, decoder),
            besides=(self.critic,),
        )

    def _decoder(self) -> Params:
        """The VAE's weights, on every device of the run from the start: a step must not send them anew."""
        if not self.cfg.mesh:
            return self.vae
        mesh = meshes.make(meshes.MeshShape.parse(self.cfg.mesh))
        return jax.device_put(everywhere(self.vae), NamedSharding(mesh, PartitionSpec()))

    def start(self, params: Params, critic: Params) -> State:
        """The state before the first step, of copies."""
        critic = jax.tree.map(jnp.copy, self._on_device(critic))
        extra = {"critic": critic, "opt_state": self.optimizers[1].init(critic)}
        if self.watch is not None:
            extra["watch"] = self.watch.start(len(self.cfg.model.stream.timesteps))
        return dataclasses.replace(loop.start(params, self.optimizers[0]), extra=extra)

    def make_step(self, key: PRNGKeyArray) -> Callable[..., tuple[State, Scalars]]:
        """One update, jitted: of a state, which is donated, the teacher's weights and a batch.

        With `judged_latents` the VAE's weights come last.
        """
        keep = sharded.keeper(self, self.optimizers[0])

        @functools.partial(jax.jit, donate_argnums=0)
        def step(
            state: State, teacher: Params, batch: dict[str, Array], decoder: Params | None = None
        ) -> tuple[State, Scalars]:
            batch, beginnings = openings.split(jax.tree.map(lambda x: constrain(x, "batch"), batch))
            keys = jax.random.split(jax.random.fold_in(key, state.step), 3)
            rollouts = self.roll_outs(state.params, batch, keys[0])
            judged = self.judged(rollouts, batch, decoder, jax.random.fold_in(keys[0], 2))
            extra, of_critic = self.learn_critic(state.extra, judged, keys[1])
            # Last in its turn of five, when the critic has caught up with what the student makes now.
            turn = (state.step + 1) % self.cfg.distill.generator_every == 0
            video = jax.vmap(stream.join)(rollouts.clean)
            clips = batch["latents"].reshape(video.shape), self.determined(batch).reshape(video.shape[:3])
            if self.watch is not None:
                shown = video.reshape(batch["latents"].shape)
                extra["watch"] = self.watch.see(extra["watch"], shown, batch["latents"], rollouts.exit_step[0])
            seen = rollouts, judged, clips, beginnings, extra.get("watch")
            state, of_student = jax.lax.cond(turn, self.learn, self.rest, state, teacher, *seen, keys[2])
            norms = of_critic.pop("critic_gradient_norm"), of_student["student_gradient_norm"]
            scalars = {
                **of_critic,
                **collapse.measure(video.reshape(batch["latents"].shape), batch["latents"]),
                **of_student,
                "gradient_norm": jnp.hypot(norms[0], jnp.where(turn, norms[1], 0)),
                "exit_step": rollouts.exit_step[0].astype(jnp.float32),
            }
            return keep(dataclasses.replace(state, step=state.step + 1, extra=extra)), scalars

        return step

    def extra_specs(self, mesh: Mapping[str, int]) -> dict[str, Any]:
        critic, shapes = sharded.weights(self.critic_model.dit, mesh), module.abstract(DiT, self.critic_model.dit)
        specs = {"critic": critic, "opt_state": sharded.moments(self.optimizers[1], shapes, critic)}
        return specs if self.watch is None else {**specs, "watch": {"share": PartitionSpec(), "count": PartitionSpec()}}

    @functools.cached_property
    def watch(self) -> steadiness.Watch | None:
        """What judges steadiness by running means, along the axes of the held-out clips."""
        options = self.cfg.distill
        if not options.steadiness or options.steadiness_bands is None:
            return None
        sizes = options.steadiness_latents, options.steadiness_bands, options.steadiness_by_size
        with jax.ensure_compile_time_eval():  # whoever asks first: what is kept must not belong to a trace
            return steadiness.Watch.of(everywhere(self.held_out["latents"]), *sizes)

    def check(self, means: Mapping[str, float]) -> None:
        collapse.check(means)

    def roll_outs(self, params: Params, batch: Mapping[str, Array], key: PRNGKeyArray) -> Rollout:
        """The student's video for each clip, some clips at a time: arrays have a leading axis of micro-batches."""
        cfg = self.cfg.model
        keys = jax.random.split(key)
        exit_step = jax.random.randint(keys[0], (), 0, len(cfg.stream.timesteps))
        student = cast_kernels(params, cfg.precision.compute)
        parts = self._micro_batches(batch)

        def one(inputs: tuple[dict[str, Array], PRNGKeyArray]) -> Rollout:
            clips, key = inputs
            clips = jax.tree.map(lambda x: constrain(x, "batch"), clips)
            given = conditions(clips, cfg)
            if self.cfg.distill.pose_drop:
                given = drop(given, jax.random.fold_in(key, 0), text=0.0, pose=self.cfg.distill.pose_drop)
            return roll_out(student, cfg, clips["latents"][:, 0], given, key, exit_step)

        return jax.lax.map(one, (parts, jax.random.split(keys[1], len(parts["latents"]))))

    def judged(
        self, rollouts: Rollout, batch: Mapping[str, Array], decoder: Params | None, key: PRNGKeyArray
    ) -> Judged:
        """What the judges see: whole rollouts, or of each micro-batch a stretch of `judged_latents`."""
        cfg, latents = self.cfg.model, self.cfg.distill.judged_latents
        if not latents:
            return jax.vmap(lambda r: Judged(r.latents, r.given, jnp.int32(0)))(rollouts)

        def one(inputs: tuple[Rollout, dict[str, Array], PRNGKeyArray]) -> Judged:
            rollout, clips, key = inputs
            start = stretch.draw(key, rollout.latents.shape[1], latents)
            given = conditions(stretch.clips(clips, start, latents, cfg.vae.temporal_stride), cfg)
            given = dataclasses.replace(given, text=rollout.text, pose_weight=rollout.pose_weight)
            return Judged(stretch.video(decoder, cfg.vae, rollout.latents, start, latents), given, start)

        parts = self._micro_batches(batch)
        return jax.lax.map(one, (rollouts, parts, jax.random.split(key, len(parts["latents"]))))

    def _micro_batches(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        return {name: x.reshape(-1, self.cfg.distill.micro_batch, *x.shape[1:]) for name, x in batch.items()}

    def determined(self, batch: Mapping[str, Array]) -> Bool[Array, "B L"]:
        """The latents of clips that regression counts: the first ones, and with `regression_revisits` known places."""
        options = self.cfg.distill
        counted = jnp.broadcast_to(
            jnp.arange(batch["latents"].shape[1]) < options.regression_latents, batch["latents"].shape[:2]
        )
        if options.regression_revisits:
            model = self.cfg.model
            counted |= revisits(batch, model.vae.temporal_stride, model.memory.horizon, options.regression_revisits)
        return counted

    def learn_critic(self, extra: dict[str, Any], judged: Judged, key: PRNGKeyArray) -> tuple[dict[str, Any], Scalars]:
        """The critic's update: flow matching on the student's video."""
        critic, options = extra["critic"], self.cfg.distill

        def loss(params: Params, seen: Judged, key: PRNGKeyArray) -> Float[Array, ""]:
            model = dmd.velocity(params, self.critic_model, checkpoint=self.cfg.recompute)
            return dmd.critic_loss(model, seen.latents, seen.given, key, options.shift)

        value, gradient = _mean(functools.partial(jax.value_and_grad(loss), critic), key, judged)
        updates, opt_state = self.optimizers[1].update(gradient, extra["opt_state"], critic)
        extra = {**extra, "critic": optax.apply_updates(critic, updates), "opt_state": opt_state}
        return extra, {"loss": value, "critic_gradient_norm": optax.tree.norm(gradient)}

    def learn(
        self,
        state: State,
        teacher: Params,
        rollouts: Rollout,
        judged: Judged,
        clips: tuple[Float[Array, "N B L H W C"], Bool[Array, "N B L"]],
        beginnings: Mapping[str, Array],
        means: dict[str, Array] | None,
        key: PRNGKeyArray,
    ) -> tuple[State, Scalars]:
        """The student's update: the gradient that teacher and critic give its video, replayed.

        Args:
          judged: what teacher and critic see of the rollouts.
          clips: the real ones, and which of their latents count in regression.
          beginnings: a batch of openings, if the run has any.
          means: what `watch` has seen, if the run has one.
        """
        cfg, options = self.cfg, self.cfg.distill
        real = dmd.guided(dmd.velocity(self._on_device(teacher), self.teacher_model), options.guidance)
        fake = dmd.velocity(state.extra["critic"], self.critic_model)
        student = cast_kernels(state.params, cfg.model.precision.compute)

        def one(
            rollout: Rollout, seen: Judged, real_one: tuple[Array, Array], key: PRNGKeyArray
        ) -> tuple[Params, Array, Array]:
            clip, counted = real_one
            score = dmd.score_gradient(real, fake, seen.latents, seen.given, key, options.shift)
            if options.judged_latents:
                score = stretch.spread(score, seen.start, clip.shape[1])
            error = dmd.regression_gradient(rollout.latents, clip, counted)
            wanted = score + options.regression * error
            if options.steadiness:
                late = rollout.exit_step >= options.steadiness_from
                wanted += jnp.where(late, options.steadiness, 0) * self.fading(rollout, clip, means)
            count = score[:, 1:].size  # the loss is a mean over all numbers of the batch but the picture's
            blocks = stream.split(wanted / count, cfg.model.stream.block)
            gradient, _ = replay_gradient(student, cfg.model, rollout, blocks, checkpoint=cfg.recompute)
            return gradient, jnp.abs(score).sum() / count, (error**2).sum() / 2 / count

        gradient, size, error = _mean(one, key, rollouts, judged, clips)
        scalars = {"dmd_gradient": size, "regression": error}
        if options.openings:
            more, scalars["opening_regression"] = self.regress(student, beginnings, jax.random.fold_in(key, 1))
            gradient = jax.tree.map(lambda g, m: g + options.openings * m, gradient, more)
        updates, opt_state = self.optimizers[0].update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        early = state.step < options.ema_start
        ema = jax.tree.map(lambda old, new: jnp.where(early, new, old + (1 - cfg.ema) * (new - old)), state.ema, params)
        scalars["student_gradient_norm"] = optax.tree.norm(gradient)
        return dataclasses.replace(state, params=params, ema=ema, opt_state=opt_state), scalars

    def fading(self, rollout: Rollout, clip: Array, means: dict[str, Array] | None) -> Float[Array, "B L H W C"]:
        """Gradient of the loss that holds a video steady, in the configured form; `means` are those of `watch`."""
        options = self.cfg.distill
        if self.watch is not None:
            return self.watch.gradient(means, rollout.latents, rollout.exit_step)
        of_clips = steadiness.spectrum_gradient if options.steadiness_spectrum else steadiness.moments_gradient
        return of_clips(rollout.latents, clip, options.steadiness_latents, options.steadiness_by_size)

    def regress(
        self, student: Params, beginnings: Mapping[str, Array], key: PRNGKeyArray
    ) -> tuple[Params, Float[Array, ""]]:
        """Gradient of half the mean squared error of the student's own video to openings, and that error."""
        cfg = self.cfg
        keys = jax.random.split(key)
        real = self._micro_batches(beginnings)["latents"]

        def one(rollout: Rollout, clip: Array, _: PRNGKeyArray) -> tuple[Params, Array]:
            error = dmd.regression_gradient(rollout.latents, clip, jnp.ones(clip.shape[:2], bool))
            count = clip[:, 1:].size
            blocks = stream.split(error / count, cfg.model.stream.block)
            gradient, _ = replay_gradient(student, cfg.model, rollout, blocks, checkpoint=cfg.recompute)
            return gradient, (error**2).sum() / 2 / count

        return _mean(one, keys[1], self.roll_outs(student, beginnings, keys[0]), real)

    def _on_device(self, params: Params) -> Params:
        return jax.device_put(params, jax.memory.Space.Device) if self.cfg.distill.offload_teacher else params

    def rest(self, state: State, *_: Any) -> tuple[State, Scalars]:
        """What `learn` is at other steps."""
        names = ["dmd_gradient", "regression", "student_gradient_norm"]
        if self.cfg.distill.openings:
            names.append("opening_regression")
        return state, dict.fromkeys(names, jnp.float32(jnp.nan))

    @property
    def optimizers(self) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """The student's and the critic's."""
        of_critic = dataclasses.replace(self.cfg, learning_rate=self.cfg.distill.critic_learning_rate)
        axes = module.logical_axes(DiT, self.critic_model.dit)
        return (
            optimizers.make(self.cfg, self.decay_mask({})),
            optimizers.make(of_critic, optimizers.matrices(axes)),
        )

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


def _mean[T](function: Callable[..., T], key: PRNGKeyArray, *stacked: Any) -> T:
    """The mean of what a function gives for each of what is stacked, one at a time; its last argument is a key."""
    inputs = (*stacked, jax.random.split(key, jax.tree.leaves(stacked)[0].shape[0]))
    shapes = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], inputs))

    def add(total: T, each: tuple) -> tuple[T, None]:
        return jax.tree.map(jnp.add, total, function(*each)), None

    total, _ = jax.lax.scan(add, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), inputs)
    return jax.tree.map(lambda leaf: leaf / len(inputs[-1]), total)


def make(cfg: TrainConfig) -> DistillStage:
    """The stage, after the checks that need no compilation.

    Raises:
      ConfigError: there is no run to start from, or lengths or sizes don't go together.
      InputError: there is no teacher or critic that fits, or the teacher is shorter than the rollout; and see
        `latent_stage.arguments`.
    """
    options, length = cfg.distill, cfg.model.vae.latents_of(cfg.frames)
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
    if options.steadiness and length < 2 * options.steadiness_latents:
        raise ConfigError(
            f"config.frames={cfg.frames} are {length} latents, config.distill.steadiness compares spans of "
            f"steadiness_latents={options.steadiness_latents}: expected at least two"
        )
    if options.steadiness_bands is not None and options.steadiness_spectrum:
        raise ConfigError("config.distill.steadiness_spectrum is of single waves, steadiness_bands of bands: set one")
    coarsest = min(cfg.model.latent_size) // 2
    if options.steadiness_bands is not None and not 1 <= options.steadiness_bands <= coarsest:
        raise ConfigError(
            f"config.distill.steadiness_bands={options.steadiness_bands}: expected 1 to {coarsest}, two waves or more "
            f"in each, of pictures of {cfg.model.latent_size} cells"
        )
    if options.critic_dit is not None and not options.critic:
        raise ConfigError("config.distill.critic is empty: a critic of a size of its own needs weights to start from")
    if cfg.batch % options.micro_batch:
        raise ConfigError(f"config.batch={cfg.batch} is not a multiple of distill.micro_batch={options.micro_batch}")
    if cfg.schedule != "constant":
        raise ConfigError(f"config.schedule={cfg.schedule!r}: stage distill has a constant learning rate")
    shape = meshes.MeshShape.parse(cfg.mesh)
    if options.micro_batch % (shape.data * shape.fsdp):
        raise ConfigError(
            f"config.distill.micro_batch={options.micro_batch} can't be divided over data={shape.data} x "
            f"fsdp={shape.fsdp} devices: expected a multiple of {shape.data * shape.fsdp}"
        )
    if options.openings:
        _check_openings(cfg)
    if options.offload_teacher and not cfg.mesh:
        raise ConfigError("config.distill.offload_teacher=True needs config.mesh, as in fsdp=1")
    if options.judged_latents and not 2 <= options.judged_latents <= length:
        raise ConfigError(
            f"config.distill.judged_latents={options.judged_latents}: expected 2 to {length}, the latents of "
            f"config.frames={cfg.frames}, or 0 for all of them"
        )
    judged = cfg.model.vae.frames_of(options.judged_latents or length)
    check_teacher(options.teacher, options.teacher_dit or cfg.model.dit, judged, "config.distill.teacher_dit")
    stage = DistillStage(*arguments(cfg, options.vae), teacher={}, critic={})
    teacher = _load(options.teacher, stage.teacher_model.dit, cfg)
    critic = _load(options.critic, stage.critic_model.dit, cfg) if options.critic else teacher
    return dataclasses.replace(stage, teacher=teacher, critic=critic)


def _check_openings(cfg: TrainConfig) -> None:
    options = cfg.distill
    if not options.openings_data:
        raise ConfigError("config.distill.openings_data is empty: openings are those of a data set's clips")
    if options.openings_latents % cfg.model.stream.block:
        raise ConfigError(
            f"config.distill.openings_latents={options.openings_latents} is not a multiple of "
            f"model.stream.block={cfg.model.stream.block}"
        )
    if options.openings_batch % options.micro_batch:
        raise ConfigError(
            f"config.distill.openings_batch={options.openings_batch} is not a multiple of "
            f"distill.micro_batch={options.micro_batch}"
        )
    loader.Latents(options.openings_data, options.openings_latents)[0]


def _load(path: str, dit: DiTConfig, cfg: TrainConfig) -> Params:
    """A transformer's weights, divided over the run's mesh as those that train are."""
    shapes = module.abstract(DiT, dit)
    if cfg.mesh:
        mesh = meshes.make(meshes.MeshShape.parse(cfg.mesh))
        specs = sharded.weights(dit, mesh.shape)
        shapes = sharded.placed(mesh, shapes, specs, on_host=cfg.distill.offload_teacher)
    return checkpoint.load_params(path, shapes)
