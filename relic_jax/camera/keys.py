"""The key script: "w-32,wl-48,none-8" is W for 32 frames, W and L for 48, then nothing for 8.

Commas part the segments; a segment is the keys held together, a dash, and a number of frames. Case doesn't matter.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from relic_jax import outside
from relic_jax.camera.actions import ACTIONS, speed, static_actions
from relic_jax.errors import InputError

TRANSLATION = 1.0  # translation units a frame
ROTATION = 2.0  # rotation units a frame: degrees, as the procedural world usually turns

KEYS = {
    "w": ("dolly_in", TRANSLATION),
    "s": ("dolly_out", TRANSLATION),
    "a": ("truck_left", TRANSLATION),
    "d": ("truck_right", TRANSLATION),
    "e": ("pedestal_up", TRANSLATION),
    "q": ("pedestal_down", TRANSLATION),
    "i": ("tilt_up", ROTATION),
    "k": ("tilt_down", ROTATION),
    "j": ("pan_left", ROTATION),
    "l": ("pan_right", ROTATION),
    "o": ("roll_cw", ROTATION),
    "u": ("roll_ccw", ROTATION),
}
NONE = "none"
OPPOSITES = ("ws", "ad", "eq", "ik", "jl", "ou")
MAX_SPEED = 100.0  # beyond, a camera turns more than once from a frame to the next
MAX_FRAMES = 100_000  # 104 minutes; a script that asks for more is a slip of the finger


def action(keys: Iterable[str]) -> Float[np.ndarray, " 13"]:
    """The action of the keys held during one frame, in either case, float32; static when there are none."""
    names = [KEYS[key.lower()] for key in keys]
    if not names:
        return static_actions(1)[0]
    multi_hot = np.zeros(len(ACTIONS), np.float32)
    for name, magnitude in names:
        multi_hot[ACTIONS.index(name)] = magnitude
    return multi_hot


def parse(script: str, gamma: float = 1.0) -> Float[np.ndarray, "T 13"]:
    """The script's actions, one a frame, float32; the picture's own static action is not among them.

    Args:
      script: see the module.
      gamma: speed; every magnitude is multiplied by it.

    Raises:
      InputError: the script is empty or wrong (names the segment), or gamma not in (0, MAX_SPEED].
    """
    gamma = outside.number(gamma, "speed (gamma)", above=0, most=MAX_SPEED)
    return np.asarray(speed(np.stack([action(keys) for keys in held(script)]), gamma))


def held(script: str) -> list[str]:
    """The keys held in each frame, in upper case ("W", "WL", "" for none), for drawing.

    Raises:
      InputError: as `parse`.
    """
    if not script.strip():
        raise InputError('key script: expected segments such as "w-32,wl-48,none-8", got an empty script')
    frames: list[str] = []
    for segment in script.split(","):
        keys, count = _segment(segment.strip())
        if len(frames) + count > MAX_FRAMES:
            raise InputError(
                f"key script: expected at most {MAX_FRAMES} frames in all, segment {segment!r} goes beyond"
            )
        frames += [keys.upper()] * count
    return frames


def _segment(segment: str) -> tuple[str, int]:
    """(keys in lower case, frames) of one segment."""
    keys, _, count = segment.lower().partition("-")
    keys, count = keys.strip(), count.strip()
    if not keys:
        raise InputError(f'key script, segment {segment!r}: expected keys, a dash and frames, such as "w-32"')
    keys = "" if keys == NONE else keys
    for key in keys:
        if key not in KEYS:
            raise InputError(
                f"key script, segment {segment!r}: unknown key {key!r}; valid keys are "
                f"{', '.join(k.upper() for k in KEYS)} and {NONE}"
            )
        if keys.count(key) > 1:
            raise InputError(f"key script, segment {segment!r}: key {key.upper()!r} is there twice")
    for one, other in OPPOSITES:
        if one in keys and other in keys:
            raise InputError(
                f"key script, segment {segment!r}: {one.upper()} and {other.upper()} are opposite directions, "
                "hold one of them"
            )
    if not count:
        raise InputError(f'key script, segment {segment!r}: expected a dash and a number of frames, such as "w-32"')
    if not count.isdecimal() or not count.isascii() or len(count) > 9 or int(count) == 0:
        raise InputError(
            f"key script, segment {segment!r}: expected a whole number of frames from 1 to {MAX_FRAMES}, got {count!r}"
        )
    return keys, int(count)
