"""What one user may ask of the server."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError

from relic_jax import picture
from relic_jax.errors import InputError

PICTURE_TYPES = ("JPEG", "PNG", "WEBP")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    upload: int = 64 * 2**20  # of a message with a picture or a session
    picture: int = 16 * 2**20
    pixels: int = 40_000_000
    messages: float | int = 200  # a second, on the long run
    burst: int = 400  # messages at once
    waiting_commands: int = 8  # that aren't carried out yet
    idle: float | int = 600  # without a key or a command
    stall: float | int = 30  # in which a user takes nothing of what is sent
    record: float | int = 600  # of a recording


class Bucket:
    """A token bucket: how many messages one may send now."""

    def __init__(self, rate: float | int, burst: int, now: float):
        self._rate, self._burst, self._left, self._then = rate, burst, float(burst), now

    def take(self, now: float) -> bool:
        """Whether there was one left."""
        self._left = min(self._burst, self._left + (now - self._then) * self._rate)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def read_picture(data: bytes, limits: Limits, height: int, width: int) -> tuple[Float[np.ndarray, "H W 3"], str | None]:
    """A user's picture as the model sees it, and what was done to it (`picture.read`).

    Raises:
      InputError: it is too large, has too many pixels, or is no JPEG, PNG or WebP that can be read.
    """
    if len(data) > limits.picture:
        raise InputError(f"the picture has {len(data) / 1e6:.1f} MB; expected at most {limits.picture / 1e6:.1f}")
    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_TYPES) as file:
            pixels = file.width * file.height
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        raise InputError(f"the picture can't be read; expected {', '.join(PICTURE_TYPES)}") from None
    if pixels > limits.pixels:
        raise InputError(
            f"the picture has {pixels / 1e6:.0f} megapixels; expected at most {limits.pixels / 1e6:.0f}: the model "
            f"sees {width}x{height}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        try:
            image, note = picture.read(path, height, width)
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "")) from None
    return image, note.replace(f"{folder}/", "the ") if note else None
