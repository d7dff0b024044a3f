"""Does the model read? Two sentences, one picture, the same keys and noise: what only the sentence names must differ.

The scenes are pairs of houses that differ in one thing which the picture doesn't show (`data.house.swaps`): a thing's
colour, what it is, or the walls of the next room. The camera turns or walks to where it is in full view. A video is
right where it is nearer to its own sentence's house than to the other's; chance is a half.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from relic_jax import pixels, rng
from relic_jax.config import RelicConfig
from relic_jax.data.clip import from_poses
from relic_jax.data.house import render, swaps, truth
from relic_jax.errors import InputError
from relic_jax.evaluate import generate
from relic_jax.models import text
from relic_jax.models.bundle import Bundle
from relic_jax.models.layers import cast_kernels

LATENTS = 20  # 5 s, in whole blocks of 1, 2 or 4
JUDGED = slice(-8, None)  # frames, with what differs in full view
_CELL = 4  # pixels: what a model gets right may stand a little beside its place
_TRIES = 8  # seeds a pair


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two houses' truth of one path.

    Fields:
      video: of either house. actions: of the path, the same for both.
      place: the pixels of the last frame where either shows what differs.
    """

    seed: int
    change: str
    video: UInt8[np.ndarray, "2 T H W 3"]
    actions: Float[np.ndarray, "T 13"]
    sentences: tuple[str, str]
    place: Bool[np.ndarray, "H W"]


def pairs(cfg: RelicConfig, count: int, seed: int) -> Iterator[Pair]:
    """Pairs of the seeds from `seed` on, the kinds of change in turn; seeds that have none are left out.

    Raises:
      InputError: too many seeds have none, which is a matter of the video's size.
    """
    frames, size = cfg.vae.frames_of(LATENTS), {"height": cfg.video.height, "width": cfg.video.width}
    made = 0
    for number in range(seed, seed + _TRIES * count):
        found = swaps.swap(number, frames, swaps.CHANGES[made % len(swaps.CHANGES)])
        if found is None:
            continue
        path = found.path
        poses = path.rotations.astype(np.float32), path.positions.astype(np.float32)
        video = np.stack([np.asarray(render.render(house.geometry, *poses, **size)) for house in found.houses])
        last = slice(frames - 1, None)
        place = np.zeros(video.shape[2:4], bool)
        for house in found.houses:
            place |= truth.truth(house, path.rotations[last], path.positions[last], **size)[0][0] == found.what
        clip = from_poses(video[0], path.rotations, path.positions, caption=found.sentences[0], seed=number)
        yield Pair(number, found.change, video, clip.actions, found.sentences, place)
        made += 1
        if made == count:
            return
    raise InputError(f"only {made} of {count} pairs of sentences were found from the seed {seed} on")


def videos(model: Bundle, pair: Pair, seed: int) -> UInt8[np.ndarray, "2 T H W 3"]:
    """What the model makes of the common picture and keys with each of the two sentences, from the same noise."""
    cfg = model.config
    dit = cast_kernels(model.params["dit"], cfg.precision.compute)
    first = jnp.asarray(pixels.to_float(pair.video[:1, :1]))
    picture = generate.encode(model.params["vae"], cfg, first)[:, 0]
    made = []
    for sentence in pair.sentences:
        words = text.embed(model.params["text"], cfg.text, model.tokenizer, [sentence])
        given = generate.conditions(cfg, words, pair.actions[None], jnp.ones(1))
        latents = generate.latents(dit, cfg, picture, given, rng.from_seed(seed))
        made.append(np.asarray(generate.pixels(model.params["vae"], cfg, latents))[0])
    return np.stack(made)


def right(pair: Pair, made: UInt8[np.ndarray, "2 T H W 3"]) -> Bool[np.ndarray, "2"]:
    """Whether each video, where what differs should be seen, is nearer to its own house than to the other."""
    cells = _cells(pair.place[None, ..., None])[0, ..., 0] > 0
    ours, theirs = (_cells(video[:, JUDGED].mean(1))[:, cells] for video in (made, pair.video))
    distance = ((ours[:, None] - theirs[None]) ** 2).mean((-2, -1))
    return distance.argmin(1) == np.arange(2)


def _cells(x: np.ndarray) -> Float[np.ndarray, "N h w C"]:
    count, height, width, channels = x.shape
    cut = x[:, : height // _CELL * _CELL, : width // _CELL * _CELL].astype(np.float64)
    return cut.reshape(count, height // _CELL, _CELL, width // _CELL, _CELL, channels).mean((2, 4))


def accuracy(by_pair: list[tuple[Pair, Bool[np.ndarray, "2"]]]) -> dict[str, float]:
    """`swap_accuracy` over all sentences, and `swap_accuracy.<change>` of each kind of change there is."""
    kinds = {pair.change for pair, _ in by_pair}
    figures = {"swap_accuracy": float(np.mean([ok for _, ok in by_pair]))}
    for kind in sorted(kinds):
        figures[f"swap_accuracy.{kind}"] = float(np.mean([ok for pair, ok in by_pair if pair.change == kind]))
    return figures
