"""Numbers from outside: what people, files and other programs give is finite and in range before it is used.

One number that is not finite never leaves a stream again: poses add up and the cache is attended to by every later
block. So whatever takes numbers from outside asks here first, and the sentence names the frame, record or field.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from relic_jax.errors import InputError

SEEDS = 2**64  # as many as there are unsigned 64-bit integers, other tools' seeds among them


def number(value: Any, name: str, *, above: float | int = -math.inf, most: float | int = math.inf) -> float:
    """A finite number, greater than `above` and at most `most`.

    Raises:
      InputError: it is not; says the range and the value, `name` first.
    """
    try:
        given = float(value)
    except (TypeError, ValueError, OverflowError):
        given = math.nan
    if math.isfinite(given) and above < given <= most:
        return given
    low = f" above {above:g}" if above > -math.inf else ""
    high = f"{' and' if low else ''} at most {most:g}" if most < math.inf else ""
    raise InputError(f"{name}: expected a finite number{low}{high}, got {value!r}")


def seed(value: Any, name: str = "seed") -> int:
    """A whole number from 0 to 2^64 - 1.

    Raises:
      InputError: it is none.
    """
    try:
        given = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        given = -1
    if not 0 <= given < SEEDS:
        raise InputError(f"{name}: expected a whole number from 0 to 2^64 - 1, got {value!r}")
    return given


def array(
    values: Any,
    name: str,
    axes: Sequence[str] = (),
    *,
    least: float | int = -math.inf,
    most: float | int = math.inf,
    last: Sequence[str] = (),
) -> np.ndarray:
    """An array of finite numbers in [least, most], float64.

    Args:
      name: what the array is called. axes: what its first axes count, as in ("frame",), for the sentence.
      last: names of the last axis's entries, for the sentence.

    Raises:
      InputError: it holds no numbers, or names the first that is not finite or out of range, and where it stands.
    """
    try:
        given = np.asarray(values)
        if np.iscomplexobj(given):
            raise TypeError("complex numbers")
        given = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: expected numbers, got something else ({error})") from None
    bad = ~(np.isfinite(given) & (given >= least) & (given <= most))
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        wanted = "a finite number" if least == -math.inf and most == math.inf else f"a number in [{least:g}, {most:g}]"
        raise InputError(f"{name}{_place(at, axes, last)}: expected {wanted}, got {given[at]:g}")
    return given


def _place(at: tuple[int, ...], axes: Sequence[str], last: Sequence[str]) -> str:
    """Where an entry stands, in words: ", frame 3, pan_left"."""
    words = [f"{axis} {index}" for axis, index in zip(axes, at, strict=False)]
    rest = at[len(axes) :]
    if last and rest:
        words.append(last[rest[-1]])
        rest = rest[:-1]
    words += [f"entry {', '.join(map(str, rest))}"] if rest else []
    return "".join(f", {word}" for word in words)
