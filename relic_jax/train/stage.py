"""What is trained: the configuration of a run, and the five functions that a stage gives the loop.

A stage (`vae`, `teacher`, `causal`) lives in a file of its own with a `make(cfg: TrainConfig) -> Stage`;
the file is imported when it is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from relic_jax.config import ConfigError, RelicConfig
from relic_jax.models.module import Params

_STAGES = {
    "vae": "relic_jax.train.vae_stage",
    "teacher": "relic_jax.train.teacher",
    "causal": "relic_jax.train.causal",
}


@dataclasses.dataclass(frozen=True)
class VAEOptions:
    """Of stage `vae`: the loss is L1 + `mse` times MSE + `kl` times the KL divergence to a unit normal."""

    mse: float = 1.0
    kl: float = 1e-5


@dataclasses.dataclass(frozen=True)
class TeacherOptions:
    """Of stage `teacher`: flow matching on whole clips (SPEC 3)."""

    vae: str = ""  # workdir or safetensors file of the trained VAE
    shift: float = 5.0
    text_drop: float = 0.1
    pose_drop: float = 0.1  # without it the action path idles: exact poses carry everything


@dataclasses.dataclass(frozen=True)
class CausalOptions:
    """Of stage `causal`: flow matching under the hybrid-forcing mask (SPEC 5)."""

    vae: str = ""  # workdir or safetensors file of the trained VAE
    shift: float = 5.0
    text_drop: float = 0.1
    pose_drop: float = 0.1
    context_noise: float = 0.15  # the clean context gets noise of a level up to this, half of the time


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run, whole. Lengths are in steps unless a name says otherwise."""

    stage: Literal["vae", "teacher", "causal"]
    model: RelicConfig
    data: str  # folder of the training clips
    data_val: str  # folder of held-out clips, for the samples
    steps: int
    batch: int  # clips a step
    frames: int  # video frames a clip
    learning_rate: float
    init_from: str = ""  # workdir or safetensors file whose EMA weights the run starts from
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup: int = 100
    schedule: Literal["constant", "cosine"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0  # global gradient norm
    ema: float = 0.999
    seed: int = 0
    log_every: int = 20
    sample_every: int = 500
    save_every: int = 500
    keep: int = 2  # checkpoints kept, the newest ones
    vae: VAEOptions | None = None
    teacher: TeacherOptions | None = None
    causal: CausalOptions | None = None

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
        if not 0 <= self.ema < 1:
            raise ConfigError(f"config.ema={self.ema} must lie in [0, 1)")
        if not 0 <= self.warmup <= self.steps:
            raise ConfigError(f"config.warmup={self.warmup} must lie between 0 and config.steps={self.steps}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"config.betas={self.betas} must be two numbers in [0, 1)")
        for name in _STAGES:
            if (getattr(self, name) is not None) != (name == self.stage):
                raise ConfigError(f"config.stage={self.stage} needs options config.{self.stage} and no other stage's")


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

    def init(self, key: PRNGKeyArray) -> Params:
        """Fresh parameters."""
        ...

    def loss(
        self, params: Params, batch: Mapping[str, Array], key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss of one batch and scalars worth plotting; runs under jit and value_and_grad."""
        ...

    def batches(self, seed: int) -> Batches:
        """Training batches in an order that `seed` decides."""
        ...

    def decay_mask(self, params: Params) -> Any:
        """True where weight decay applies; by default on every parameter that isn't 1-D.

        A stage with stacked blocks overrides it (`optimizer.matrices`): their vectors are 2-D.
        """
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

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
