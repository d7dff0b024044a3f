"""The teacher's ODE trajectories as a data set: what stage `ode` learns from (SPEC 5).

A record is that of an encoded clip (`data.latents`) whose latents are the teacher's own, not the clip's (only the
picture is), and:

    trajectory  float16 [L, S, h, w, C]  the latents on their way, at each of the S timesteps
    timesteps   float32 [S]              those at which the student is asked, `stream.timesteps`
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from relic_jax.config import ConfigError, DiTConfig, RelicConfig, finite, first_difference, from_config_dict
from relic_jax.data import latents, loader, shards, workers
from relic_jax.diffusion import flow
from relic_jax.diffusion.velocity import bidirectional, guided
from relic_jax.errors import InputError
from relic_jax.models import module
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.parallel.part import WHOLE, Part
from relic_jax.rng import from_seed, numbered
from relic_jax.train import checkpoint
from relic_jax.train.clips import conditions


@dataclasses.dataclass(frozen=True)
class TrajectoryConfig:
    """Which trajectories of which teacher. `launch.train` takes it as it takes a `run.RunConfig`."""

    stage: Literal["ode_data"]
    model: RelicConfig  # the teacher's `dit`; `stream.timesteps` says what is kept
    teacher: str  # workdir or safetensors file of the teacher of this length
    data: str  # folder of encoded clips: the pictures, and what conditions them
    frames: int  # video frames of a trajectory
    clips: int  # trajectories; where there are fewer encoded clips, these come again with other noise
    batch: int = 1  # that are made together, on as many of a process's devices as divide it
    guidance: float = 4.0  # on the text; actions and poses are always given
    steps: int = 48  # of Euler's method
    shift: float = 5.0
    seed: int = 0
    workers: int = 0  # processes; 0: one a core, on an accelerator one

    def __post_init__(self) -> None:
        finite(self, "config")
        if self.stage != "ode_data":
            raise ConfigError(f"config.stage={self.stage!r} is not ode_data")
        for field, least in (("frames", 1), ("clips", 1), ("batch", 1), ("steps", 1), ("workers", 0), ("seed", 0)):
            if getattr(self, field) < least:
                raise ConfigError(f"config.{field}={getattr(self, field)} must be at least {least}")
        off = [t for t in self.model.stream.timesteps if abs(self._step_of(t) - round(self._step_of(t))) > 1e-3]
        if off:
            raise ConfigError(
                f"config.model.stream.timesteps has {off[0]:g}, which is none of the timesteps of config.steps="
                f"{self.steps} steps with config.shift={self.shift:g}: nothing could be kept there"
            )

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps at which the student's timesteps stand: 0, 12, 24, 36 of 48."""
        return tuple(round(self._step_of(t)) for t in self.model.stream.timesteps)

    @property
    def latents(self) -> int:
        return self.model.vae.latents_of(self.frames)

    def _step_of(self, timestep: float) -> float:
        level = timestep / flow.STEPS
        return self.steps * (1 - level / (self.shift - (self.shift - 1) * level))  # `flow.shift` undone


def write(cfg: TrajectoryConfig, directory: Path, part: Part = WHOLE) -> tuple[int, int]:
    """Makes what is missing of the data set in `directory`, shard by shard.

    Args:
      part: which of the shards, where several hosts share the work; the last to end completes the data set.

    Returns:
      How many trajectories there are, and how many of them were made here and now.

    Raises:
      ConfigError: `frames` is not 4 L + 1.
      InputError: there is no teacher that fits, or it is shorter than the trajectories; there are no encoded clips,
        or too short ones; the directory holds a training run, or trajectories of another configuration.
    """
    stride = cfg.model.vae.temporal_stride
    if (cfg.frames - 1) % stride:
        raise ConfigError(f"config.frames={cfg.frames}: expected {stride} L + 1 frames, as the VAE takes them")
    if (directory / "checkpoints").exists():
        raise InputError(f"{directory} holds a training run; choose another --workdir for trajectories")
    loader.Latents(cfg.data, cfg.latents)[0]
    check_teacher(cfg.teacher, cfg.model.dit, cfg.frames)
    params = checkpoint.load_params(cfg.teacher, module.abstract(DiT, cfg.model.dit))
    params = jax.tree.map(np.asarray, cast_kernels(params, cfg.model.precision.compute))
    processes = cfg.workers or (len(workers.cores()) if jax.default_backend() == "cpu" else 1)
    split = shards.Split(directory, "train", cfg.clips)
    return cfg.clips, workers.write(split, Trajectories(cfg, params), processes, part)


def check_teacher(path: str, dit: DiTConfig, frames: int, field: str = "config.model.dit") -> None:
    """What the teacher's own configuration says of it, where that was kept with its weights.

    Args:
      dit, frames: what it is taken for. field: the name of `dit` in the run's config.

    Raises:
      InputError: it was trained on shorter clips, or is another transformer (RoPE's scale leaves no trace in weights).
    """
    values = checkpoint.recorded(path) or {}
    if "frames" not in values:
        return
    if values["frames"] < frames:
        raise InputError(
            f"{path}: the teacher was trained on clips of {values['frames']} frames, expected at least {frames}, "
            "as long as what it is to score or make (config.frames)"
        )
    difference = first_difference(from_config_dict(DiTConfig, values["model"]["dit"]), dit, field)
    if difference is not None:
        name, theirs, ours = difference
        raise InputError(f"{path}: the teacher was trained with {name}={theirs!r}, the config has {ours!r}")


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """How the shards are made (`workers.Job`). `params` are the teacher's on the host, kernels cast for compute."""

    cfg: TrajectoryConfig
    params: Params
    description: str = "Trajectories of a video diffusion model's probability-flow ODE, with camera poses and actions."

    @functools.cached_property
    def made_from(self) -> dict[str, Any]:
        cfg = self.cfg
        return {
            "data": str(Path(cfg.data).resolve()),
            "teacher": latents.fingerprint(self.params),
            "dit": dataclasses.asdict(cfg.model.dit),
            "timesteps": cfg.model.stream.timesteps,
            "compute": cfg.model.precision.compute,
            **{name: getattr(cfg, name) for name in ("frames", "guidance", "steps", "shift", "seed")},
        }

    @property
    def features(self) -> tfds.features.FeaturesDict:
        height, width = self.cfg.model.latent_size
        count, channels = len(self.cfg.kept), self.cfg.model.vae.latent_channels
        tensor = tfds.features.Tensor
        return tfds.features.FeaturesDict(
            {
                **latents.features(self.cfg.model),
                "trajectory": tensor(shape=(None, count, height, width, channels), dtype=np.float16, encoding="bytes"),
                "timesteps": tensor(shape=(count,), dtype=np.float32),
            }
        )

    @functools.cached_property
    def _mesh(self) -> Mesh:
        """This process's devices, as many as divide what is made together."""
        devices = jax.local_devices()
        return Mesh(np.array(devices[: math.gcd(self.cfg.batch, len(devices))]), ("data",))

    def write(self, split: shards.Split, shard: int, done: Callable[[], None]) -> None:
        """Makes and writes one shard; calls `done` after each record."""
        params = jax.device_put(self.params, NamedSharding(self._mesh, PartitionSpec()))

        def records() -> Iterator[dict[str, Any]]:
            numbers = split.shards[shard]
            for first in range(0, len(numbers), self.cfg.batch):
                for record in self._records(params, numbers[first : first + self.cfg.batch]):
                    yield record
                    done()

        split.write(shard, self.features, records())

    def _records(self, params: Params, numbers: range) -> list[dict[str, Any]]:
        """The records of these numbers, made together."""
        clips = loader.Latents(self.cfg.data, self.cfg.latents, fields=(*loader.LATENT_FIELDS, "seed"))
        padded = [*numbers, *[numbers[-1]] * (self.cfg.batch - len(numbers))]  # one shape, one compilation
        given = [clips[number % len(clips)] for number in padded]
        batch = {name: np.stack([clip[name] for clip in given]) for name in loader.LATENT_FIELDS}
        rows = NamedSharding(self._mesh, PartitionSpec("data"))
        end, path = jax.device_get(solve(params, self.cfg, *jax.device_put((batch, np.asarray(padded)), rows)))
        return [
            {
                **{name: clip[name] for name in ("rotations", "positions", "actions", "unit", "seed")},
                "text": clip["text"].astype(np.float16),
                "latents": end[i].astype(np.float16),
                "trajectory": path[i].astype(np.float16),
                "timesteps": np.float32(self.cfg.model.stream.timesteps),
            }
            for i, clip in enumerate(given[: len(numbers)])
        ]


@functools.partial(jax.jit, static_argnames="cfg")
def solve(
    params: Params, cfg: TrajectoryConfig, batch: dict[str, Array], numbers: Int[Array, "B"]
) -> tuple[Float[Array, "B L H W C"], Float[Array, "B L S H W C"]]:
    """Where the trajectories of these numbers end, and where they are at the timesteps that are kept."""
    given, shape = conditions(batch, cfg.model), batch["latents"].shape[1:]
    teacher = guided(bidirectional(params, cfg.model), cfg.guidance)
    # A trajectory's noise is its own, whatever it is made together with.
    key = from_seed(cfg.seed)
    noise = jax.vmap(lambda n: jax.random.normal(numbered(key, n), shape))(numbers)
    levels = flow.shift(1 - jnp.arange(cfg.steps) / cfg.steps, cfg.shift)
    end, path = flow.solve(lambda x, level: teacher(x, level, given), noise, batch["latents"][:, 0], levels)
    return end, jnp.moveaxis(path[jnp.asarray(cfg.kept)], 0, 2)
