"""Videos on disk, and the sheets that people look at.

Frames are uint8 [T, H, W, 3] RGB; the model's are float in [-1, 1]. A file is written under a temporary name beside
its own and renamed when it is whole, so nothing is ever left half-written or lost.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

import av
import numpy as np
from av.container import OutputContainer
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from relic_jax.errors import InputError
from relic_jax.files import replacing

# Visually lossless. x264's macroblock tree reads unset memory on frames as small as the tiny model's: the same frames
# would give another file each time.
_X264 = {"crf": "16", "x264-params": "mbtree=0"}
KEY_ROWS = (("QWE", "ASD"), ("UIO", "JKL"))  # the two hands, as on a keyboard

_INK, _PAPER, _HELD = (255, 255, 255), (20, 22, 28), (255, 196, 61)


def write_image(path: str | os.PathLike, image: Image.Image) -> None:
    """A PNG file."""
    with replacing(path) as partial:
        image.save(partial, format="PNG")


class VideoWriter:
    """Encodes frames into an open container; `video_writer` makes one."""

    def __init__(self, container: OutputContainer, fps: int):
        self._container, self._fps, self._stream = container, fps, None

    def write(self, frames: UInt8[np.ndarray, "T H W 3"]) -> None:
        """Append frames; all must have the size of the first, with even sides (H.264 halves the colour's)."""
        for frame in frames:
            if self._stream is None:
                self._stream = self._open(*frame.shape[:2])
            self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def _open(self, height: int, width: int) -> av.VideoStream:
        if height % 2 or width % 2:
            raise InputError(f"video: expected frames with even sides, got {width}x{height}")
        stream = self._container.add_stream("libx264", rate=self._fps, options=_X264)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        return stream

    def finish(self) -> None:
        """Write out what the encoder still holds."""
        if self._stream is None:
            raise ValueError("a video needs at least one frame")
        self._container.mux(self._stream.encode())


@contextlib.contextmanager
def video_writer(path: str | os.PathLike, fps: int) -> Iterator[VideoWriter]:
    """An H.264 MP4 file written as frames come; it appears under its name when the block ends well.

    Raises:
      InputError: the file can't be written.
    """
    options = {"movflags": "faststart"}  # the index in front, so that a browser plays while it loads
    with replacing(path) as partial, av.open(str(partial), "w", format="mp4", options=options) as container:
        writer = VideoWriter(container, fps)
        yield writer
        writer.finish()


def write_video(path: str | os.PathLike, frames: UInt8[np.ndarray, "T H W 3"], fps: int) -> None:
    """A whole video at once."""
    with video_writer(path, fps) as writer:
        writer.write(frames)


def enlarged(frame: UInt8[np.ndarray, "H W 3"], scale: int) -> Image.Image:
    """A frame `scale` times as large, for looking at."""
    image = Image.fromarray(frame)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


def annotated(frame: UInt8[np.ndarray, "H W 3"], held: str, seconds: float, scale: int) -> Image.Image:
    """A frame enlarged, with its time and the keyboard drawn on it: the keys in `held` (upper case) lit."""
    image = enlarged(frame, scale).convert("RGBA")
    overlay = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(overlay)
    cap = max(8, round(image.width / 16))
    gap = max(1, cap // 8)
    font = ImageFont.load_default(cap * 0.62)
    block = 3 * cap + 2 * gap
    for rows, left in zip(KEY_ROWS, (2 * gap, image.width - block - 2 * gap), strict=True):
        for row, keys in enumerate(rows):
            top = image.height - (2 - row) * (cap + gap) - gap
            for column, key in enumerate(keys):
                x = left + column * (cap + gap)
                lit = key in held
                draw.rounded_rectangle(
                    (x, top, x + cap - 1, top + cap - 1), cap // 5, (*_HELD, 235) if lit else (*_PAPER, 110)
                )
                ink = (*_PAPER, 255) if lit else (*_INK, 150)
                draw.text((x + cap / 2, top + cap / 2), key, ink, font, anchor="mm")
    clock = f"{seconds:.1f} s"
    draw.rounded_rectangle((2 * gap, 2 * gap, 3 * gap + 2 * cap, 2 * gap + cap), cap // 5, (*_PAPER, 160))
    draw.text((2.5 * gap + cap, 2 * gap + cap / 2), clock, (*_INK, 255), font, "mm")
    return Image.alpha_composite(image, overlay).convert("RGB")


def evenly_spaced(frames: int, count: int = 24) -> Int[np.ndarray, " N"]:
    """Up to `count` frame numbers from the first to the last of so many frames, for `contact_sheet`."""
    return np.unique(np.linspace(0, frames - 1, min(count, frames)).round().astype(int))


def contact_sheet(
    frames: UInt8[np.ndarray, "N H W 3"], held: Sequence[str], seconds: Float[np.ndarray, " N"], columns: int = 6
) -> Image.Image:
    """Frames in rows, enlarged to about 256 pixels wide, each with its time and the keys held in it.

    Args:
      held: for each frame its keys in upper case (`camera.keys.held`).
      seconds: for each frame its time.
    """
    scale = max(1, round(256 / frames.shape[2]))
    cells = zip(frames, held, seconds, strict=True)
    return _tile([annotated(frame, keys, time, scale) for frame, keys, time in cells], columns)


def image_grid(images: Sequence[UInt8[np.ndarray, "H W 3"]], columns: int, scale: int = 1) -> Image.Image:
    """Pictures of one size in rows from left to right, `scale` times enlarged."""
    return _tile([enlarged(image, scale) for image in images], columns)


def _tile(images: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    width, height = images[0].size
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), _PAPER)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet.paste(image, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet


def side_by_side(videos: Mapping[str, UInt8[np.ndarray, "T H W 3"]], scale: int = 2) -> UInt8[np.ndarray, "T h w 3"]:
    """Videos of one size next to each other, `scale` (even) times enlarged, each under its title."""
    frames, height, width, _ = next(iter(videos.values())).shape
    header = Image.new("RGB", (len(videos) * width * scale, 2 * (width * scale // 16)), _PAPER)
    draw, font = ImageDraw.Draw(header), ImageFont.load_default(header.height * 0.6)
    for i, title in enumerate(videos):
        draw.text(((i + 0.5) * width * scale, header.height / 2), title, _INK, font, anchor="mm")
    joined = np.concatenate(list(videos.values()), axis=2)
    out = np.empty((frames, header.height + height * scale, header.width, 3), np.uint8)
    out[:, : header.height] = np.asarray(header)
    for t in range(frames):
        out[t, header.height :] = np.asarray(enlarged(joined[t], scale))
    return out
