"""What is trained: the configuration of a run, what a step changes, and the functions that a stage gives the loop.

A stage (`vae`, `teacher`, `causal`, `ode`, `distill`) lives in a file of its own with a
`make(cfg: TrainConfig) -> Stage`; the file is imported when it is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from relic_jax.config import ConfigError, DiTConfig, RelicConfig
from relic_jax.data.part import WHOLE, Part
from relic_jax.models.module import Params
from relic_jax.parallel.mesh import MeshShape
from relic_jax.parallel.rules import check_batch

_STAGES = {
    "vae": "relic_jax.train.vae_stage",
    "teacher": "relic_jax.train.teacher",
    "causal": "relic_jax.train.causal",
    "ode": "relic_jax.train.ode",
    "distill": "relic_jax.train.distill",
}


@dataclasses.dataclass(frozen=True)
class VAEOptions:
    """Of stage `vae`: the loss is `l1` times L1 + `mse` times MSE + `kl` times the KL divergence to a unit normal.

    Fields:
      log_mse: weight of the MSE's decimal logarithm, which is PSNR: easy clips then weigh as much as hard ones.
      decoder_only: the encoder stays as it is, bit for bit, and with it every latent that it has made.
      anchor: weight of the squared distance of the latents, in their own deviations, from those that the weights of
        `init_from` give. The encoder may learn on, and what was trained on its latents still fits.
    """

    l1: float = 1.0
    mse: float = 1.0
    kl: float = 1e-5
    log_mse: float = 0.0
    decoder_only: bool = False
    anchor: float = 0.0


@dataclasses.dataclass(frozen=True)
class TeacherOptions:
    """Of stage `teacher`: flow matching on whole clips (SPEC 3)."""

    vae: str = ""  # workdir or safetensors file of the trained VAE
    shift: float = 5.0
    text_drop: float = 0.1
    pose_drop: float = 0.1  # without it the action path idles: exact poses carry everything
    picture_drop: float = 0.0  # share of the clips whose picture is noise too: what they show, the text alone says


@dataclasses.dataclass(frozen=True)
class CausalOptions:
    """Of stage `causal`: flow matching under the hybrid-forcing mask (SPEC 5)."""

    vae: str = ""  # workdir or safetensors file of the trained VAE
    shift: float = 5.0
    text_drop: float = 0.1
    pose_drop: float = 0.1
    context_noise: float = 0.15  # the clean context gets noise of a level up to this, half of the time
    opening: float = 0.0  # share of the samples whose noisy blocks are the clip's first, besides those drawn evenly


@dataclasses.dataclass(frozen=True)
class OdeOptions:
    """Of stage `ode`: regression on the teacher's trajectories under the hybrid-forcing mask (SPEC 5)."""

    vae: str = ""  # workdir or safetensors file of the trained VAE
    pose_drop: float = 0.1  # the text stays: the trajectories are the teacher's with guidance


@dataclasses.dataclass(frozen=True)
class DistillOptions:
    """Of stage `distill`: distribution matching on the student's own video (SPEC 6).

    The optimizer's fields of the run are the student's; the critic has them all but the learning rate.
    """

    vae: str = ""  # workdir or safetensors file of the trained VAE
    teacher: str = ""  # workdir or safetensors file of the teacher of this length
    teacher_dit: DiTConfig | None = None  # its size; None: the student's
    critic: str = ""  # workdir or safetensors file that the critic starts from; empty: the teacher
    critic_dit: DiTConfig | None = None  # its size; None: the teacher's
    critic_learning_rate: float = 4e-7
    guidance: float = 4.0  # of the teacher, on the text
    shift: float = 5.0
    generator_every: int = 5  # steps; the critic learns at every one
    pose_drop: float = 0.0  # share of the clips that the student, and its judges, follow by actions alone
    micro_batch: int = 1  # clips that are rolled out together; gradients add up to `batch`
    regression: float = 0.0  # weight of half the squared error to the clip, besides matching; 0: the paper's own loss
    regression_latents: int = 1  # the first ones of a clip, which the error is taken of; latent 0 is the picture
    regression_revisits: int = 0  # and revisits of what the first so many look at (`clips.revisits`)
    steadiness: float = 0.0  # weight of the loss against fading (`train.steadiness`); 0: the paper's own loss
    steadiness_latents: int = 20  # a span of it
    steadiness_from: int = 0  # evaluation at which a rollout must leave off to be held steady; the first ones are means
    steadiness_spectrum: bool = False  # of each wave's power; else of energy, contrast and detail
    steadiness_bands: int | None = None  # of so many bands of waves in each direction, by running means
    steadiness_by_size: float = 0.0  # 0: all statistics count alike in it; 1: by what they carry
    openings: float = 0.0  # weight of half the squared error to openings (`train.openings`), their mean; 0: none
    openings_data: str = ""  # folder of clips whose openings they are
    openings_batch: int = 24  # openings a step, rolled out `micro_batch` at a time
    openings_latents: int = 8  # of each
    judged_latents: int = 0  # length of the stretch that teacher and critic see of a longer rollout; 0: all of it
    ema_start: int = 200  # step from which `ema` is a moving average; before it is the weights
    offload_teacher: bool = False  # but for the student's turns its weights lie in the host's memory; needs a mesh

    def __post_init__(self) -> None:
        for field in (
            "generator_every",
            "micro_batch",
            "regression_latents",
            "steadiness_latents",
            "openings_batch",
            "openings_latents",
        ):
            if getattr(self, field) < 1:
                raise ConfigError(f"config.distill.{field}={getattr(self, field)} must be at least 1")
        if self.critic_learning_rate <= 0:
            raise ConfigError(f"config.distill.critic_learning_rate={self.critic_learning_rate} must be above 0")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run, whole. Lengths are in steps unless a name says otherwise."""

    stage: Literal["vae", "teacher", "causal", "ode", "distill"]
    model: RelicConfig
    data: str  # folder of the training clips
    data_val: str  # folder of held-out clips, for the samples
    steps: int
    batch: int  # clips a step
    frames: int  # video frames a clip
    learning_rate: float
    balance_actions: bool = False  # clips with rare actions are drawn more often (`data.balance`)
    init_from: str = ""  # workdir or safetensors file whose EMA weights the run starts from
    fresh: tuple[str, ...] = ()  # with `init_from`: parts that start as at first all the same, as in "text_embedding"
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup: int = 100
    schedule: Literal["constant", "cosine"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0  # global gradient norm
    ema: float = 0.999
    mesh: str = ""  # axes over the devices, as in "fsdp=8,seq=4"; empty: the first device alone
    recompute: bool = False  # each layer's activations in the backward pass, instead of keeping them
    seed: int = 0
    log_every: int = 20
    sample_every: int = 500
    save_every: int = 500
    keep: int = 2  # checkpoints kept, the newest ones
    vae: VAEOptions | None = None
    teacher: TeacherOptions | None = None
    causal: CausalOptions | None = None
    ode: OdeOptions | None = None
    distill: DistillOptions | None = None

    def __post_init__(self) -> None:
        for field, valid in (
            ("stage", tuple(_STAGES)),
            ("optimizer", ("adamw", "muon")),
            ("schedule", ("constant", "cosine")),
        ):
            value = getattr(self, field)
            if value not in valid:
                raise ConfigError(f"config.{field}={value!r} is not one of {', '.join(valid)}")
        for field in ("steps", "batch", "frames", "log_every", "sample_every", "save_every", "keep"):
            if getattr(self, field) < 1:
                raise ConfigError(f"config.{field}={getattr(self, field)} must be at least 1")
        for field in ("learning_rate", "clip"):
            if getattr(self, field) <= 0:
                raise ConfigError(f"config.{field}={getattr(self, field)} must be above 0")
        if self.fresh and not self.init_from:
            raise ConfigError(f"config.fresh={self.fresh} needs config.init_from: without it everything starts anew")
        if self.vae is not None and self.vae.anchor and not self.init_from:
            raise ConfigError(
                f"config.vae.anchor={self.vae.anchor} needs config.init_from: there is nothing to hold on to"
            )
        if self.balance_actions and self.stage == "vae":
            raise ConfigError("config.balance_actions=True: stage vae is shown no actions")
        check_batch(self.batch, MeshShape.parse(self.mesh).sizes)
        if not 0 <= self.ema < 1:
            raise ConfigError(f"config.ema={self.ema} must lie in [0, 1)")
        if not 0 <= self.warmup <= self.steps:
            raise ConfigError(f"config.warmup={self.warmup} must lie between 0 and config.steps={self.steps}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"config.betas={self.betas} must be two numbers in [0, 1)")
        for name in _STAGES:
            if (getattr(self, name) is not None) != (name == self.stage):
                raise ConfigError(f"config.stage={self.stage} needs options config.{self.stage} and no other stage's")


Scalars = dict[str, Float[Array, ""]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that a step changes. `params` and `ema` are float32; `step` counts the steps done."""

    params: Params
    ema: Params
    opt_state: Any
    step: Int[Array, ""]
    extra: Any = None  # what a stage trains besides: a critic and its optimizer's state

    def trees(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        trees = {"params": self.params, "ema": self.ema, "opt_state": self.opt_state}
        return trees if self.extra is None else {**trees, "extra": self.extra}


@dataclasses.dataclass(frozen=True)
class Trainer:
    """How a run's state begins and moves on."""

    optimizer: optax.GradientTransformation  # of `State.params`
    start: Callable[..., State]  # of the parameters and `besides`; copies them: no buffer may appear in a state twice
    step: Callable[[State, dict[str, Any]], tuple[State, Scalars]]  # jitted; donates the state
    besides: tuple[Params, ...] = ()  # other weights that the state begins with: jit can't close over all of a mesh's


@runtime_checkable
class Batches(Protocol):
    """An endless iterator over batches that can say where it is, and go back there.

    The state is anything that JSON can hold.
    """

    def __next__(self) -> dict[str, np.ndarray]: ...

    def get_state(self) -> Any: ...

    def set_state(self, state: Any) -> None: ...


@runtime_checkable
class Stage(Protocol):
    """Pure functions over nested dicts of float32 parameters; subclass it to inherit what is optional."""

    @property
    def compiler_options(self) -> dict[str, Any]:
        """XLA's, for the step; none by default."""
        return {}

    def init(self, key: PRNGKeyArray) -> Params:
        """Fresh parameters."""
        ...

    def loss(
        self, params: Params, batch: Mapping[str, Array], key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss of one batch and scalars worth plotting; runs under jit and value_and_grad.

        A stage that has a `trainer` of its own needs none.
        """
        ...

    def batches(self, seed: int, part: Part = WHOLE) -> Batches:
        """Training batches in an order that `seed` decides; of each the rows of this part."""
        ...

    def decay_mask(self, params: Params) -> Any:
        """True where weight decay applies; by default on every parameter that isn't 1-D.

        A stage with stacked blocks overrides it (`optimizer.matrices`): their vectors are 2-D.
        """
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    def logical_axes(self, params: Params) -> Any:
        """The names of each parameter's axes for `parallel.rules`; by default nothing is divided over a mesh."""
        return jax.tree.map(lambda leaf: (None,) * leaf.ndim, params)

    def extra_specs(self, mesh: Mapping[str, int]) -> Any:
        """The partition of every leaf of `State.extra` on a mesh of these sizes; None where there is none."""
        return None

    def trainer(self, key: PRNGKeyArray) -> Trainer | None:
        """The stage's own update, where one loss and one optimizer won't do; None: the loop's.

        Its scalars have at least `loss`, and `gradient_norm` of all that the step updated: a run stops where they are
        not finite. One that is NaN otherwise was not measured at that step.
        """
        return None

    def check(self, means: Mapping[str, float]) -> None:
        """Raises where a run should stop though its numbers are finite; given means over the steps just logged."""

    def evaluate(self, params: Params, key: PRNGKeyArray) -> dict[str, float]:
        """Scalars on held-out data, from the EMA weights, every `sample_every` steps."""
        return {}

    def sample(self, params: Params, key: PRNGKeyArray) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
        """Pictures by name, from the EMA weights, every `sample_every` steps."""
        return {}

    def finish(self, params: Params) -> Params:
        """What is measured once at the end and kept with the parameters; the tree stays the same."""
        return params


def make(cfg: TrainConfig) -> Stage:
    """The stage that a configuration names."""
    return importlib.import_module(_STAGES[cfg.stage]).make(cfg)
