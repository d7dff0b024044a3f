"""What distillation keeps and what it buys: a streaming student beside the bidirectional teacher that it came from.

Both make the same held-out clips, as long as those that the teacher was trained on, from the same pictures and actions:
the student block by block in a few evaluations a block, the teacher all at once in many steps. Compared are action
following and PSNR over the first two seconds, which the picture determines (`evaluate.world`), how like real video
the whole clips are (`evaluate.frechet`), and the time that a second of video takes.
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from relic_jax.config import ConfigError, DiTConfig, from_config_dict
from relic_jax.errors import InputError
from relic_jax.evaluate import frechet, generate, world
from relic_jax.models import module, text
from relic_jax.models.bundle import Bundle
from relic_jax.models.dit import DiT
from relic_jax.models.layers import cast_kernels
from relic_jax.train import checkpoint

_REPEATS = 3


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A model and how it makes whole clips."""

    model: Bundle
    sampler: generate.Sampler


def teacher(path: str, student: Bundle, steps: int, guidance: float) -> tuple[Contestant, int]:
    """The teacher of a training run, with the student's VAE and text encoder; and the frames of the clips to compare.

    They are as many whole blocks of the student's as the teacher was trained on, at the most.

    Args:
      path: workdir of stage `teacher`, or a safetensors file with its configuration.

    Raises:
      InputError: there are no such weights, they aren't those of a teacher, or it is given other latents or text.
    """
    recorded: dict[str, Any] = checkpoint.recorded(path) or {}
    if recorded.get("stage") != "teacher":
        raise InputError(f"{path}: expected the run of a teacher, its configuration says stage={recorded.get('stage')}")
    try:
        cfg = dataclasses.replace(student.config, dit=from_config_dict(DiTConfig, recorded["model"]["dit"]))
    except ConfigError as error:
        raise InputError(f"{path}: the teacher doesn't fit the student: {error}") from error
    params = checkpoint.load_params(path, module.abstract(DiT, cfg.dit))
    model = Bundle(cfg, {**student.params, "dit": params}, student.tokenizer)
    block = cfg.stream.block
    frames = cfg.vae.frames_of(cfg.vae.latents_of(recorded["frames"]) // block * block)
    return Contestant(model, partial(generate.whole_latents, steps=steps, guidance=guidance)), frames


def measure(
    contestant: Contestant, scenes: world.Scenes, seed: int
) -> tuple[dict[str, float | int], dict[str, UInt8[np.ndarray, "N T H W 3"]]]:
    """The figures of `world.summary`, `frechet`, `seconds_per_second`; and the videos, by `world.VARIANTS` and `vae`.

    `frechet_vae` is the distance of the truth, encoded and decoded, to itself: what no model can go below.
    """
    model = contestant.model
    made = world.videos(model, scenes, seed, contestant.sampler)
    figures = world.summary(world.scores(scenes.video, made))
    seen = partial(frechet.features, model.params["vae"], model.config.vae)
    truth = seen(scenes.video)
    figures["frechet"] = frechet.distance(seen(made["right"]), truth)
    figures["frechet_vae"] = frechet.distance(seen(made["vae"]), truth)
    figures["seconds_per_second"] = seconds_per_second(contestant, scenes)
    return figures, made


def seconds_per_second(contestant: Contestant, scenes: world.Scenes) -> float:
    """Time of the transformer for a second of video of one clip, without compilation: the best of some tries."""
    model = contestant.model
    cfg = model.config
    dit = cast_kernels(model.params["dit"], cfg.precision.compute)
    words = text.embed(model.params["text"], cfg.text, model.tokenizer, scenes.captions[:1])
    picture = jnp.zeros((1, *cfg.latent_size, cfg.vae.latent_channels))
    given = generate.conditions(cfg, words, scenes.actions[:1], jnp.ones(1))
    times = []
    for _ in range(_REPEATS + 1):  # the first compiles
        begin = time.perf_counter()
        made = contestant.sampler(dit, cfg, picture, given, jax.random.key(0))
        jax.block_until_ready(made)
        times.append(time.perf_counter() - begin)
    return min(times[1:]) * cfg.video.fps / scenes.actions.shape[1]
