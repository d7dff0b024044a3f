"""Does a long walk stay a picture? Brightness, saturation and sharpness over a session far beyond the horizon.

Errors of a stream that lives on its own output add up: pictures burn out, grow pale or soft. Walks through many
held-out scenes are averaged, because one walk also changes when it turns from the sky to a wall; the renderer's truth
of the same walks says how much of that is left. A clip of the world begins where there is much to see, and over 60 s
the truth itself would lose a tenth of its sharpness: what is walked here begins some seconds later.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from relic_jax import pixels
from relic_jax.config import RelicConfig
from relic_jax.data import builder
from relic_jax.data.clip import Clip
from relic_jax.models.bundle import Bundle
from relic_jax.stream.session import Session

Frames = UInt8[np.ndarray, "T H W 3"]
Numbers = Float[np.ndarray, " T"]

LEAD_SECONDS = 10
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def brightness(frames: Frames) -> Numbers:
    """Mean luma, 0 to 255."""
    return (frames @ LUMA).mean((1, 2))


def saturation(frames: Frames) -> Numbers:
    """Mean chroma: how far each pixel's largest channel is above its smallest, 0 to 255."""
    return np.ptp(frames, axis=-1).astype(np.float64).mean((1, 2))


def sharpness(frames: Frames) -> Numbers:
    """Mean step of the luma from a pixel to the next, across and down, 0 to 255."""
    luma = frames @ LUMA
    return (np.abs(np.diff(luma, axis=1)).mean((1, 2)) + np.abs(np.diff(luma, axis=2)).mean((1, 2))) / 2


MEASURES: dict[str, Callable[[Frames], Numbers]] = {
    "brightness": brightness,
    "saturation": saturation,
    "sharpness": sharpness,
}


def walk(cfg: RelicConfig, seed: int, seconds: int) -> Clip:
    """A walk through the scene `seed`: the picture, and `seconds` of video after it."""
    lead, frames = LEAD_SECONDS * cfg.video.fps, seconds * cfg.video.fps + 1
    return builder.world_clip(seed, frames, cfg.video.height, cfg.video.width, lead)


def stream(model: Bundle, clip: Clip, seed: int) -> Frames:
    """What a session makes of a walk's first frame and actions; as many frames."""
    session = Session.open(model, pixels.to_float(clip.video[0]), clip.caption, seed)
    return np.concatenate(list(session.play(clip.actions[1:])))[: len(clip.video)]


def curves(videos: list[Frames], fps: int) -> dict[str, Float[np.ndarray, " seconds"]]:
    """Each measure second by second, mean over the videos; the picture is left out."""
    result = {}
    for name, measure in MEASURES.items():
        frames = np.mean([measure(video[1:]) for video in videos], axis=0)
        result[name] = frames.reshape(-1, fps).mean(1)
    return result


def change(curve: Float[np.ndarray, " seconds"], first: int = 5) -> Float[np.ndarray, " spans"]:
    """How far the mean of each `first` seconds is from that of the first ones, relative to it."""
    spans = curve[: len(curve) // first * first].reshape(-1, first).mean(1)
    return spans / spans[0] - 1
