"""Does the model remember? Out for four seconds and back by the reverse actions, in scenes it has never seen.

The way out lasts longer than the window of full-resolution latents, so what the first frame showed has left it when
the camera comes back: only memory can bring it back. Three views are compared with the renderer's truth:

  returned  the last frames, where the camera stands again as it did at first
  midway    half-way back, where it saw things on the way out
  far       the turning point: nothing there is remembered, and a model that simply doesn't move fails there
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from relic_jax import pixels, rng
from relic_jax.camera import actions as camera_actions
from relic_jax.config import RelicConfig
from relic_jax.data import walks, worlds
from relic_jax.data.clip import from_poses
from relic_jax.evaluate import generate
from relic_jax.evaluate.quality import ssim
from relic_jax.models import text
from relic_jax.models.bundle import Bundle
from relic_jax.models.layers import cast_kernels
from relic_jax.pixels import psnr

OUT_FRAMES = 64  # 4 s at 16 FPS
VIEWS = {
    "returned": slice(2 * OUT_FRAMES - 3, 2 * OUT_FRAMES + 1),
    "midway": slice(OUT_FRAMES + OUT_FRAMES // 2 - 2, OUT_FRAMES + OUT_FRAMES // 2 + 2),
    "far": slice(OUT_FRAMES - 2, OUT_FRAMES + 2),
}
# The keys of each kind of way, pairs of opposites of which one is drawn: those held all the way out, and those that
# join at its end. Roll and pedestal alone would not take the first view out of sight (walks lean by 16 degrees at most,
# rooms are low), so they end a pan.
WAYS = {
    "pan": ((("pan_left", "pan_right"),), ()),
    "truck": ((("truck_left", "truck_right"),), ()),
    "both": ((("pan_left", "pan_right"), ("truck_left", "truck_right")), ()),
    "pedestal": ((("pan_left", "pan_right"),), (("pedestal_up", "pedestal_down"),)),
    "roll": ((("pan_left", "pan_right"),), (("roll_cw", "roll_ccw"),)),
}
_END_FRAMES = 7
PLAIN = ("pan", "truck", "both")
_SPEEDS = (0.7, 1.1)
_CHUNK = 8  # scenes at once


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Ways out and back; T frames are whole blocks, the camera rests in those after the return."""

    video: UInt8[np.ndarray, "N T H W 3"]
    actions: Float[np.ndarray, "N T 13"]
    captions: list[str]
    ways: list[str]
    things: list[Bool[np.ndarray, "n H W"]]  # where the first frame, and the returned view, show each thing


def scenes(
    cfg: RelicConfig, count: int, seed: int, ways: tuple[str, ...] = PLAIN, world: str = worlds.DEFAULT
) -> Iterator[Scenes]:
    """One scene at a time, of the seeds `seed`, `seed` + 1, ..., taking the `ways` in turn."""
    block, size = cfg.stream.block, {"height": cfg.video.height, "width": cfg.video.width}
    whole, of = -(-cfg.vae.latents_of(2 * OUT_FRAMES + 1) // block) * block, worlds.WORLDS[world]
    for number in range(seed, seed + count):
        way, scene = ways[(number - seed) % len(ways)], of.build(number)
        path = out_and_back(scene, way, np.random.default_rng([number, 2]))
        order = np.minimum(np.arange(cfg.vae.frames_of(whole)), 2 * OUT_FRAMES)
        rotations, positions = path.rotations[order], path.positions[order]
        video = of.render(scene, rotations, positions, **size)
        caption = of.caption(scene, number, rotations[0], positions[0])
        clip = from_poses(video, rotations, positions, caption=caption, seed=number)
        things = (
            of.things(scene, rotations[0], positions[0], **size)
            if of.things
            else np.zeros((0, *video.shape[1:3]), bool)
        )
        yield Scenes(clip.video[None], clip.actions[None], [clip.caption], [way], [things])


def join(parts: list[Scenes]) -> Scenes:
    """All in one."""
    return Scenes(
        np.concatenate([p.video for p in parts]),
        np.concatenate([p.actions for p in parts]),
        [caption for p in parts for caption in p.captions],
        [way for p in parts for way in p.ways],
        [masks for p in parts for masks in p.things],
    )


def out_and_back(scene: walks.Scene, way: str, rng: np.random.Generator) -> walks.Path:
    """The path of 2 OUT_FRAMES + 1 frames on which most steps can be made, of a few that are tried."""
    best: tuple[float, walks.Path] | None = None
    for _ in range(12):
        rotation, position = walks.start_pose(scene, rng)
        actions = np.zeros((OUT_FRAMES, len(camera_actions.ACTIONS)))
        for pairs, first in zip(WAYS[way], (0, OUT_FRAMES - _END_FRAMES), strict=True):
            for pair in pairs:
                actions[first:, camera_actions.ACTIONS.index(rng.choice(pair))] = rng.uniform(*_SPEEDS)
        out, made = walks.walk(scene, rotation, position, actions)
        rotations = np.concatenate([rotation[None], out.rotations])
        positions = np.concatenate([position[None], out.positions])
        if best is None or made.mean() > best[0]:
            order = [*range(OUT_FRAMES + 1), *range(OUT_FRAMES - 1, -1, -1)]
            best = float(made.mean()), walks.Path(rotations[order], positions[order])
        if best[0] == 1.0:
            break
    return best[1]


def videos(model: Bundle, of: Scenes, seed: int) -> UInt8[np.ndarray, "N T H W 3"]:
    """What a model makes of the scenes' first frames and actions, in the mode of its config's memory."""
    cfg = model.config
    dit = cast_kernels(model.params["dit"], cfg.precision.compute)
    words = text.embed(model.params["text"], cfg.text, model.tokenizer, of.captions)
    first = jnp.asarray(pixels.to_float(of.video[:, :1]))
    pictures = jnp.concatenate([generate.encode(model.params["vae"], cfg, frame[None]) for frame in first])[:, 0]
    made = []
    for start in range(0, len(of.captions), _CHUNK):
        some = slice(start, start + _CHUNK)
        key = rng.numbered(rng.from_seed(seed), start)
        given = generate.conditions(cfg, words[some], of.actions[some], jnp.ones(len(of.captions[some])))
        latents = generate.latents(dit, cfg, pictures[some], given, key)
        made += [np.asarray(generate.pixels(model.params["vae"], cfg, x[None])) for x in latents]
    return np.concatenate(made)


def scores(
    truth: UInt8[np.ndarray, "N T H W 3"], made: UInt8[np.ndarray, "N T H W 3"]
) -> dict[str, Float[np.ndarray, " N"]]:
    """`psnr_db.<view>` and `ssim.<view>` of each scene, mean over the view's frames."""
    result = {}
    for view, frames in VIEWS.items():
        result[f"psnr_db.{view}"] = np.asarray(psnr(made[:, frames], truth[:, frames])).mean(1)
        result[f"ssim.{view}"] = np.asarray(ssim(made[:, frames], truth[:, frames])).mean(1)
    return result


def recognised(truth: UInt8[np.ndarray, "N T H W 3"], made: UInt8[np.ndarray, "N T H W 3"]) -> Bool[np.ndarray, " N"]:
    """Whether the returned view is nearer to its own truth than to that of any other scene, in means of cells."""
    ours, theirs = (_cells(video[:, VIEWS["returned"]].mean(1)) for video in (made, truth))
    distance = ((ours[:, None] - theirs[None]) ** 2).mean((2, 3, 4))
    return distance.argmin(1) == np.arange(len(truth))


def _cells(frames: Float[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N h w 3"]:
    side = 8
    count, height, width, _ = frames.shape
    cut = frames[:, : height // side * side, : width // side * side]
    return cut.reshape(count, height // side, side, width // side, side, 3).mean((2, 4))


def interval(values: Float[np.ndarray, " N"], seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """The 95 % confidence interval of the mean over scenes, by bootstrap."""
    picks = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)
