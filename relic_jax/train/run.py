"""What is trained: the configuration of a run, what a step changes, and what a stage gives the loop.

A stage (`vae`, `teacher`, `causal`, `ode`, `distill`) lives in a file of its own, with the configuration that extends
`RunConfig` for it; the file is imported when it is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from relic_jax.config import ConfigError, RelicConfig, at_least, finite, one_of, within
from relic_jax.models.module import Params
from relic_jax.parallel.mesh import MeshShape
from relic_jax.parallel.part import WHOLE, Part
from relic_jax.parallel.rules import check_batch
from relic_jax.rng import Streams
from relic_jax.train import abstract, optimizer
from relic_jax.train.optimizer import OptimizerConfig

# stage: module, configuration, stage
_STAGES = {
    "vae": ("vae", "VAERunConfig", "VAEStage"),
    "teacher": ("teacher", "TeacherConfig", "TeacherStage"),
    "causal": ("causal", "CausalConfig", "CausalStage"),
    "ode": ("ode", "OdeConfig", "OdeStage"),
    "distill": ("distill", "DistillConfig", "DistillStage"),
}
NAMES = tuple(_STAGES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run. Lengths are in steps unless a name says otherwise."""

    stage: Literal["vae", "teacher", "causal", "ode", "distill"]
    model: RelicConfig
    data: str  # folder of the training clips
    data_val: str  # folder of held-out clips, for the samples
    steps: int
    batch: int  # clips a step
    frames: int  # video frames a clip
    optimizer: OptimizerConfig
    init_from: str = ""  # workdir or safetensors file whose EMA weights the run starts from
    ema: float = 0.999  # decay of the moving average of the weights
    ema_start: int = 0  # step from which it is one; before it is the weights
    mesh: str = ""  # axes over the devices, as in "fsdp=8,seq=4"; empty: the first device alone
    recompute: bool = False  # each layer's activations in the backward pass, instead of keeping them
    seed: int = 0
    log_every: int = 20
    sample_every: int = 500
    save_every: int = 500
    keep: int = 2  # checkpoints kept, the newest ones

    def __post_init__(self) -> None:
        finite(self, "config")
        one_of(self, "config", "stage", NAMES)
        at_least(self, "config", 1, "steps", "batch", "frames", "log_every", "sample_every", "save_every", "keep")
        at_least(self, "config", 0, "ema_start", "seed")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"config.ema={self.ema} must lie in [0, 1)")
        if self.optimizer.warmup > self.steps:
            raise ConfigError(
                f"config.optimizer.warmup={self.optimizer.warmup} must lie between 0 and config.steps={self.steps}"
            )
        check_batch(self.batch, MeshShape.parse(self.mesh).sizes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipRunConfig(RunConfig):
    """A run on encoded clips.

    Fields:
      vae: workdir or safetensors file of the trained VAE, for held-out measurements and pictures.
      pose_drop: share of the clips whose poses are withheld. Without it the action path idles: exact poses carry
        everything.
      balance_actions: clips with rare actions are drawn more often (`data.balance`).
    """

    vae: str = ""
    pose_drop: float = 0.1
    balance_actions: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "config", 0, 1, "pose_drop")


Scalars = dict[str, Float[Array, ""]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that a step changes. Shapes, partitions or named axes may stand where arrays do.

    Fields:
      params, ema: float32 weights, and their moving average.
      step: int32, the steps done.
    """

    params: Params
    ema: Params
    opt_state: Any
    step: Any

    def trees(self) -> dict[str, Any]:
        """What a checkpoint holds of it, item by item; its number is the step."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "step"}


@runtime_checkable
class Batches(Protocol):
    """An endless iterator over batches that can say where it is, and go back there.

    The state is anything that JSON can hold.
    """

    def __next__(self) -> dict[str, np.ndarray]: ...

    def get_state(self) -> Any: ...

    def set_state(self, state: Any) -> None: ...


class Stage:
    """What is trained, and how, of one configuration. Making one reads nothing; all weights are arguments."""

    compiler_options: ClassVar[dict[str, Any]] = {}  # XLA's, for the step

    def __init__(self, cfg: RunConfig) -> None:
        self.cfg = cfg

    @property
    def parameters(self) -> Any:
        """What trains: a tree of `abstract.Leaf`."""
        raise NotImplementedError

    def abstract(self) -> abstract.Arguments:
        """What `step` is given, as shapes with named axes."""
        raise NotImplementedError

    def abstract_state(self) -> State:
        """The state, as shapes with named axes: moments lie as the parameters do."""
        params = self.parameters
        return State(params, params, abstract.moments(self.optimizer, params), abstract.Leaf((), jnp.int32, ()))

    def weights(self, key: PRNGKeyArray) -> Params:
        """Fresh parameters."""
        raise NotImplementedError

    def init(self, params: Params, frozen: Any) -> State:
        """The state before the first step, of copies: the step donates it, no buffer may appear in it twice."""
        del frozen
        return State(params, jax.tree.map(jnp.copy, params), self.optimizer.init(params), jnp.zeros((), jnp.int32))

    def step(self, state: State, frozen: Any, batch: Mapping[str, Array], rng: Streams) -> tuple[State, Scalars]:
        """One update; runs under jit.

        Returns:
          The state after it, and scalars worth plotting: at least `loss`, and `gradient_norm` of all that was
          updated. A run stops where these two are not finite; another that is NaN was not measured at this step.
        """
        raise NotImplementedError

    def batches(self, seed: int, part: Part = WHOLE) -> Batches:
        """Training batches in an order that `seed` decides; of each the rows of this part."""
        raise NotImplementedError

    def load(self, shapes: Any) -> Any:
        """The frozen weights, from disk; `shapes` say where each lies."""
        return shapes

    def check_inputs(self) -> None:
        """Looks at everything on disk that the run needs, before anything is compiled.

        Raises:
          ConfigError, InputError: something is missing or doesn't fit.
        """

    def check(self, means: Mapping[str, float]) -> None:
        """Raises where a run should stop though its numbers are finite; given means over the steps just logged."""

    def evaluate(self, params: Params, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        """Scalars on held-out data, from the EMA weights, every `sample_every` steps."""
        return {}

    def sample(self, params: Params, frozen: Any, key: PRNGKeyArray) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
        """Pictures by name, from the EMA weights, every `sample_every` steps."""
        return {}

    def finish(self, params: Params) -> Params:
        """What is measured once at the end and kept with the parameters; the tree stays the same."""
        return params

    @property
    def optimizer(self) -> Any:
        """Of `State.params`."""
        return optimizer.make(self.cfg.optimizer, self.cfg.steps, self.parameters)

    def update(self, state: State, gradient: Params) -> State:
        """The optimizer's step and the moving average; the step's number goes on by one."""
        params, opt_state = optimizer.apply(self.optimizer, gradient, state.opt_state, state.params)
        ema = optimizer.average(state.ema, params, state.step, self.cfg.ema, self.cfg.ema_start)
        return dataclasses.replace(state, params=params, ema=ema, opt_state=opt_state, step=state.step + 1)


class SupervisedStage(Stage):
    """A stage with one loss and one optimizer."""

    def loss(self, params: Params, batch: Mapping[str, Array], rng: Streams) -> tuple[Float[Array, ""], Scalars]:
        """The loss of one batch and scalars worth plotting."""
        raise NotImplementedError

    def step(self, state: State, frozen: Any, batch: Mapping[str, Array], rng: Streams) -> tuple[State, Scalars]:
        del frozen
        (loss, scalars), gradient = jax.value_and_grad(self.loss, has_aux=True)(state.params, batch, rng)
        rate = optimizer.schedule(self.cfg.optimizer, self.cfg.steps)(state.step)
        return self.update(state, gradient), {
            "loss": loss,
            **scalars,
            "gradient_norm": optimizer.norm(gradient),
            "learning_rate": jnp.asarray(rate, jnp.float32),
        }


def config_class(stage: str) -> type[RunConfig]:
    """The configuration of a stage.

    Raises:
      ConfigError: there is no such stage.
    """
    if stage not in _STAGES:
        raise ConfigError(f"config.stage={stage!r} is not one of {', '.join(NAMES)}")
    file, config, _ = _STAGES[stage]
    return getattr(importlib.import_module(f"relic_jax.train.{file}"), config)


def make(cfg: RunConfig, *, check: bool = True) -> Stage:
    """The stage that a configuration describes, after the checks that need no compilation; unchecked it reads nothing.

    Raises:
      ConfigError, InputError: see the stage's `check_inputs`.
    """
    file, _, kind = _STAGES[cfg.stage]
    stage = getattr(importlib.import_module(f"relic_jax.train.{file}"), kind)(cfg)
    if check:
        stage.check_inputs()
    return stage
