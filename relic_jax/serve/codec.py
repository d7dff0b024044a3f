"""Frames as they are sent: a JPEG each, or packets of H.264 that a page's WebCodecs decodes."""

from __future__ import annotations

import abc
import io
from fractions import Fraction

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import PictureType
from jaxtyping import UInt8
from PIL import Image

from relic_jax.errors import InputError
from relic_jax.serve.protocol import Codec

# No B frames and no look-ahead: a packet for each frame as it comes. Parameter sets stand before every key frame.
_X264 = {
    "preset": "veryfast",
    "tune": "zerolatency",
    "crf": "18",
    "x264-params": "bframes=0:repeat-headers=1:annexb=1:scenecut=0:keyint=infinite:mbtree=0",
}


class Encoder(abc.ABC):
    """Of one user's frames."""

    name: Codec

    @abc.abstractmethod
    def encode(self, frames: UInt8[np.ndarray, "N H W 3"], key: bool) -> list[bytes]:
        """A part for each frame; with `key`, decoding can begin at the first."""


class Jpeg(Encoder):
    """Every frame alone."""

    name: Codec = "jpeg"

    def __init__(self, quality: int = 90):
        self._quality = quality

    def encode(self, frames: UInt8[np.ndarray, "N H W 3"], key: bool) -> list[bytes]:
        del key
        parts = []
        for frame in frames:
            out = io.BytesIO()
            # Small frames are enlarged on the screen: halved colour would show.
            Image.fromarray(frame).save(out, format="JPEG", quality=self._quality, subsampling="4:4:4")
            parts.append(out.getvalue())
        return parts


class H264(Encoder):
    """A stream in Annex B form, baseline order: no B frames, nothing is reordered."""

    name: Codec = "h264"

    def __init__(self, height: int, width: int, fps: int):
        self._context = av.CodecContext.create("libx264", "w")
        self._context.height, self._context.width, self._context.pix_fmt = height, width, "yuv420p"
        self._context.time_base, self._context.framerate = Fraction(1, fps), Fraction(fps, 1)
        self._context.options = _X264
        self._count = 0

    def encode(self, frames: UInt8[np.ndarray, "N H W 3"], key: bool) -> list[bytes]:
        parts = []
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, self._count = self._count, self._count + 1
            picture.pict_type = PictureType.I if key and i == 0 else PictureType.NONE
            parts.append(b"".join(bytes(packet) for packet in self._context.encode(picture)))
        return parts


def check_h264(height: int, width: int, fps: int) -> None:
    """Whether this machine can make it.

    Raises:
      InputError: a side is odd, or PyAV has no x264.
    """
    try:
        H264(height, width, fps).encode(np.zeros((1, height, width, 3), np.uint8), key=True)
    except (FFmpegError, ValueError) as error:
        raise InputError(f"frames of {width}x{height} can't be sent as H.264: {error}") from error


def make(codec: Codec, height: int, width: int, fps: int, quality: int) -> Encoder:
    """A user's encoder."""
    return Jpeg(quality) if codec == "jpeg" else H264(height, width, fps)
