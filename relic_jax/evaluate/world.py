"""Does the model follow actions? Held-out scenes of the procedural world, against the renderer's truth.

For each scene one video is made with the true clip's actions and one with every action mirrored, from the
same picture and the same noise; both again with the camera poses withheld. A model that follows its
actions is nearer to the truth with the right ones. A model that never moves would not be, and clips that
hardly move are left out: there, nothing can be told.
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
from relic_jax.data import builder, worlds
from relic_jax.evaluate import generate
from relic_jax.models import text
from relic_jax.models.bundle import Bundle
from relic_jax.models.layers import cast_kernels
from relic_jax.pixels import psnr

MEASURED = slice(1, 33)  # the two seconds after the picture
LATER = slice(16, 33)
SECONDS = {"1s": slice(1, 17), "2s": slice(17, 33)}
SEEN_AT_LEAST = 0.05  # of a second's pixels the picture must show, for a scene to count there
MOVES_BELOW_DB = 25.0  # a clip really moves when repeating its first frame stays below this
_EXACT = 1e-2  # mean squared error of a video that is met exactly: 68 dB
VARIANTS = ("right", "mirrored", "right_no_pose", "mirrored_no_pose")


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Held-out clips.

    Fields:
      seen: the pixels of the frames up to the end of `MEASURED` that the picture shows too; None where the world
        can't tell.
    """

    video: UInt8[np.ndarray, "N T H W 3"]
    actions: Float[np.ndarray, "N T 13"]
    captions: list[str]
    seen: Bool[np.ndarray, "N t H W"] | None = None


def scenes(
    cfg: RelicConfig, count: int, seed: int, frames: int = MEASURED.stop, world: str = worlds.DEFAULT
) -> Iterator[tuple[int, Scenes]]:
    """One clip of at least `frames` at a time, of the scenes `seed`, `seed` + 1, ...; as long as whole blocks need."""
    block, size = cfg.stream.block, {"height": cfg.video.height, "width": cfg.video.width}
    latents = -(-cfg.vae.latents_of(frames) // block) * block
    of = worlds.WORLDS[world]
    for i in range(count):
        clip = builder.world_clip(seed + i, cfg.vae.frames_of(latents), *size.values(), world=world)
        seen = None
        if of.seen is not None:
            rotations, positions = (x[: MEASURED.stop] for x in clip.absolute())
            seen = of.seen(of.build(seed + i), rotations, positions, **size)[None]
        yield i, Scenes(clip.video[None], clip.actions[None], [clip.caption], seen)


def join(parts: list[Scenes]) -> Scenes:
    """All in one."""
    return Scenes(
        np.concatenate([p.video for p in parts]),
        np.concatenate([p.actions for p in parts]),
        [caption for p in parts for caption in p.captions],
        None if parts[0].seen is None else np.concatenate([p.seen for p in parts if p.seen is not None]),
    )


def videos(
    model: Bundle, of: Scenes, seed: int, sampler: generate.Sampler = generate.latents
) -> dict[str, UInt8[np.ndarray, "N T H W 3"]]:
    """What the model makes of the scenes, by `VARIANTS`, and under `vae` the truth encoded and decoded."""
    cfg = model.config
    params = model.params | {"dit": cast_kernels(model.params["dit"], cfg.precision.compute)}
    words = text.embed(model.params["text"], cfg.text, model.tokenizer, of.captions)
    truth = jnp.asarray(pixels.to_float(of.video))
    latents = jnp.concatenate([generate.encode(params["vae"], cfg, clip[None]) for clip in truth])
    out = {"vae": np.concatenate([generate.pixels(params["vae"], cfg, x[None]) for x in latents])}
    actions = {"right": jnp.asarray(of.actions), "mirrored": jnp.asarray(camera_actions.mirrored(of.actions))}
    for name in VARIANTS:
        weight = jnp.full((len(of.captions),), 0.0 if name.endswith("no_pose") else 1.0)
        given = generate.conditions(cfg, words, actions[name.removesuffix("_no_pose")], weight)
        made = sampler(params["dit"], cfg, latents[:, 0], given, rng.from_seed(seed))
        out[name] = np.concatenate([generate.pixels(params["vae"], cfg, x[None]) for x in made])
    return out


def scores(
    truth: UInt8[np.ndarray, "N T H W 3"], made: dict[str, UInt8[np.ndarray, "N T H W 3"]]
) -> dict[str, np.ndarray]:
    """Numbers of each scene [N]: `<variant>_db`, `<variant>_later_db`, `still_db`, `still_later_db`, `vae_db`."""
    still = np.broadcast_to(truth[:, :1], truth.shape)
    result = {}
    for name, video in {"still": still, **made}.items():
        frames = np.asarray(psnr(video, truth))
        result[f"{name}_db"] = frames[:, MEASURED].mean(1)
        result[f"{name}_later_db"] = frames[:, LATER].mean(1)
    return result


def seen_psnr(
    truth: UInt8[np.ndarray, "N T H W 3"], made: UInt8[np.ndarray, "N T H W 3"], seen: Bool[np.ndarray, "N t H W"]
) -> dict[str, float]:
    """PSNR of the pixels that the picture shows, by `SECONDS`: mean over the scenes where there are enough of them.

    What isn't in the picture a model can only guess; here nothing excuses it.
    """
    result = {}
    for name, frames in SECONDS.items():
        error = ((made[:, frames].astype(np.float32) - truth[:, frames]) ** 2).mean(-1)
        shown = seen[:, frames]
        of = [e[s].mean() for e, s in zip(error, shown, strict=True) if s.mean() >= SEEN_AT_LEAST]
        result[name] = float(np.mean([10 * np.log10(255**2 / max(mse, _EXACT)) for mse in of])) if of else float("nan")
    return result


def moving(by_scene: dict[str, np.ndarray]) -> Bool[np.ndarray, " N"]:
    """The scenes that really move."""
    return by_scene["still_db"] < MOVES_BELOW_DB


def summary(by_scene: dict[str, np.ndarray]) -> dict[str, float | int]:
    """The figures of the clips that really move; `vae_psnr_db` of all. Fractions are of `clips`."""
    moves = moving(by_scene)
    of = {name: values[moves] for name, values in by_scene.items()}

    def closer(suffix: str) -> float:
        return float((of[f"right{suffix}_db"] > of[f"mirrored{suffix}_db"]).mean())

    return {
        "right_closer_fraction": closer(""),
        "right_closer_fraction_no_pose": closer("_no_pose"),
        "psnr_db": float(of["right_db"].mean()),
        "psnr_mirrored_db": float(of["mirrored_db"].mean()),
        "psnr_no_pose_db": float(of["right_no_pose_db"].mean()),
        "psnr_still_db": float(of["still_db"].mean()),
        "psnr_gain_over_still_db": float((of["right_later_db"] - of["still_later_db"]).mean()),
        "vae_psnr_db": float(by_scene["vae_db"].mean()),
        "clips": int(moves.sum()),
        "scenes": len(moves),
    }
