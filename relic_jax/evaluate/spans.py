"""How a long session changes: each few seconds of it beside the truth of the same walk.

Brightness and sharpness alone (`evaluate.drift`) don't tell a room from noise of the same contrast; what the VAE's
encoder sees in the frames, and the bands of their spectrum, do.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from relic_jax.config import VAEConfig
from relic_jax.evaluate import bands, frechet
from relic_jax.models.module import Params

Frames = UInt8[np.ndarray, "T H W 3"]

SECONDS = 5


def compare(
    params: Params, cfg: VAEConfig, truth: list[Frames], made: list[Frames], fps: int
) -> dict[str, Float[np.ndarray, " spans"]]:
    """`frechet` and `band_power.<band>` of each `SECONDS` of the videos against those of the truth.

    Args:
      params: the VAE's.
      truth, made: videos of a picture and whole seconds after it, in the same order.
    """
    result: dict[str, list[float]] = {}
    length = SECONDS * fps
    for start in range(0, len(truth[0]) - length, length):
        ours, theirs = ([video[start : start + length + 1] for video in videos] for videos in (made, truth))
        seen = [frechet.features(params, cfg, np.stack(videos)) for videos in (ours, theirs)]
        values = {"frechet": frechet.distance(*seen)}
        values |= {f"band_power.{name}": share for name, share in bands.shares(ours, theirs).items()}
        for name, value in values.items():
            result.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in result.items()}
