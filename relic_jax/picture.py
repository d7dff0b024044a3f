"""The picture that a session begins with: any file that people have, as the model sees it, or one sentence.

Pillow opens far more than it converts well: 16-bit grey comes out white, floats black, what is under transparency
shows. So each of its modes is decided here, and whatever changes what is seen is said in a note.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from relic_jax.errors import InputError
from relic_jax.pixels import to_float

MAX_PIXELS = 100_000_000  # more than any camera has; decoding them takes seconds and gigabytes
PAPER = (255, 255, 255)  # under what is transparent: white, as browsers and viewers have it

_NOT_A_FILE = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe, which has no end"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def read(path: str | os.PathLike, height: int, width: int) -> tuple[Float[np.ndarray, "H W 3"], str | None]:
    """A picture as float32 in [-1, 1], [height, width, 3], and a sentence about what was done to it, if anything.

    Another shape is cropped about its centre to the wanted aspect, then resized.

    Raises:
      InputError: the file is missing, is no picture that can be read (says what it is instead), or has more than
        MAX_PIXELS pixels.
    """
    name = os.fspath(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit (ours is below) and what it thinks of tags
            with Image.open(path) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                image, notes = _upright_rgb(file, name)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(
            f"picture {name!r}: expected at most {MAX_PIXELS // 10**6} megapixels, got more; make it smaller, "
            f"the model sees {width}x{height}"
        ) from None
    except Exception as error:  # decoders of damaged files raise almost anything
        raise InputError(
            f"picture {name!r}: expected an image file that can be read, got {_what(Path(path), error)}"
        ) from None
    if image.size != (width, height):
        cropped = image.width * height != image.height * width
        notes.insert(
            0,
            f"is {image.width}x{image.height}, "
            f"{'cropped about its centre and ' if cropped else ''}resized to {width}x{height}",
        )
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return to_float(np.asarray(image)), f"{name} {'; '.join(notes)}" if notes else None


def _check_file(path: str | os.PathLike) -> None:
    """There is a file, of the kind that ends: opening a pipe waits for ever, reading a device may too."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise InputError(f"picture {os.fspath(path)!r}: expected an image file, there is none") from None
    except (OSError, ValueError) as error:
        raise InputError(f"picture {os.fspath(path)!r}: expected an image file, got: {error}") from None
    for is_it, words in _NOT_A_FILE:
        if is_it(mode):
            raise InputError(f"picture {os.fspath(path)!r}: expected an image file, got {words}")


def _upright_rgb(file: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    """The first frame as 8-bit RGB, as it is meant to be seen, and what was done for that."""
    notes = []
    if getattr(file, "is_animated", False):
        notes.append("has several frames, its first is taken")
    file.load()
    turned = ImageOps.exif_transpose(file)
    if file.getexif().get(0x0112, 1) not in (0, 1):
        notes.append("is turned as its EXIF orientation says")
    if turned.has_transparency_data:
        return _on_paper(turned, notes), notes
    if turned.mode not in _MODES:
        raise InputError(
            f"picture {name!r}: expected grey or RGB of 8 or 16 bits, got Pillow's mode {turned.mode}; save it as PNG"
        )
    convert, said = _MODES[turned.mode]
    if said:
        notes.append(said)
    return convert(turned, name), notes


def _on_paper(image: Image.Image, notes: list[str]) -> Image.Image:
    layer = image.convert("RGBA")
    if layer.getchannel("A").getextrema() == (255, 255):
        return layer.convert("RGB")
    notes.append("is transparent in places, which are laid over white")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*PAPER, 255)), layer).convert("RGB")


def _plain(image: Image.Image, name: str) -> Image.Image:
    del name
    return image.convert("RGB")


def _grey(values: Float[np.ndarray, "H W"]) -> Image.Image:
    """Grey from 0 for black to 1 for white."""
    levels: UInt8[np.ndarray, "H W"] = np.rint(values * 255).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _sixteen_bits(image: Image.Image, name: str) -> Image.Image:
    del name
    return _grey(np.asarray(image).astype(np.float64) / 65535)


def _integers(image: Image.Image, name: str) -> Image.Image:
    """32-bit integers: Pillow has 16-bit PNM so, scaled to 65535; of any other file nothing says what is white."""
    values = np.asarray(image).astype(np.float64)
    if image.format not in ("PPM", None) or values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"picture {name!r}: expected 8 or 16 bits, got 32-bit integers from {values.min():g} to {values.max():g}, "
            "of which nothing says what is white; save it with 16 bits"
        )
    return _grey(values / 65535)


def _floats(image: Image.Image, name: str) -> Image.Image:
    """Floats, where they run from black at 0 to white at 1."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise InputError(
            f"picture {name!r}: expected floats in [0, 1], got {values.min():g} to {values.max():g}; scale them, or "
            "save it with 16 bits"
        )
    return _grey(values)


_SCALED = "has 16 bits a pixel, scaled to 8"
_MODES: dict[str, tuple[Callable[[Image.Image, str], Image.Image], str]] = {
    **dict.fromkeys(("1", "L", "P", "RGB", "RGBX", "YCbCr"), (_plain, "")),
    **dict.fromkeys(("CMYK", "HSV"), (_plain, "is converted to RGB, without a colour profile")),
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), (_sixteen_bits, _SCALED)),
    "I": (_integers, _SCALED),
    "F": (_floats, "holds floats, of which 0 is black and 1 white"),
}


def _what(path: Path, error: Exception) -> str:
    """What a file is that Pillow can't read, by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as unreadable:
        return f"one that can't be opened: {unreadable.strerror}"
    known = _known(head)
    if known:
        return known
    if isinstance(error, UnidentifiedImageError):
        return f"{type(error).__name__}: it is of no kind that is known"
    return f"{type(error).__name__}: it is cut short or damaged"


def _known(head: bytes) -> str | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp":
        return "HEIC, a phone's format; save it as JPEG or PNG" if head[8:12] in _HEIC else "a video; take a frame"
    if head.startswith(b"\x1aE\xdf\xa3") or head.startswith(b"FLV") or (head[:4], head[8:12]) == (b"RIFF", b"AVI "):
        return "a video; take a frame of it"
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg")) and b"<svg" in text:
        return "SVG, a drawing without pixels; export it as PNG"
    if head.startswith(b"%PDF"):
        return "a PDF; export the page as PNG"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; `git lfs pull` fetches it"
    return None
