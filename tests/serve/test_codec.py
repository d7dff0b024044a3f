"""Frames as they are sent come back as they were, nearly."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from relic_jax.errors import InputError
from relic_jax.serve import codec


def clip(count, height=64, width=96):
    rows, columns = np.mgrid[:height, :width]
    shades = [np.stack([rows * 3, columns * 2, (rows + columns + 6 * t) % 256], -1) for t in range(count)]
    return np.stack(shades).clip(0, 255).astype(np.uint8)


def error(one, other):
    return np.abs(one.astype(float) - other.astype(float)).mean()


def test_jpegs():
    frames = clip(3)
    parts = codec.make("jpeg", 64, 96, 16, 90).encode(frames, key=False)
    assert len(parts) == 3
    for frame, part in zip(frames, parts, strict=True):
        assert error(frame, np.asarray(Image.open(io.BytesIO(part)))) < 3


def decoded(parts):
    decoder = av.CodecContext.create("h264", "r")
    shown = []
    for part in parts:
        shown += decoder.decode(av.Packet(part))
    return shown + decoder.decode(None)


def test_h264_is_a_packet_a_frame_and_begins_anew_at_a_key():
    encoder = codec.make("h264", 64, 96, 16, 90)
    first, second = clip(13), clip(16)[::-1]
    parts = encoder.encode(first, key=True) + encoder.encode(second, key=True)
    assert len(parts) == 29 and all(part.startswith(b"\0\0\0\1") for part in parts)
    keys = [i for i, part in enumerate(parts) if b"\0\0\0\1\x67" in part]  # parameter sets stand before a key frame
    assert keys == [0, 13]
    shown = decoded(parts)
    assert len(shown) == 29
    assert not any(frame.pict_type == av.video.frame.PictureType.B for frame in shown)
    for frame, picture in zip([*first, *second], shown, strict=True):
        assert error(frame, picture.to_ndarray(format="rgb24")) < 6
    later = decoded(parts[13:])  # a page that begins at the second key
    assert error(second[-1], later[-1].to_ndarray(format="rgb24")) < 6


def test_frames_that_h264_doesnt_have_are_refused():
    codec.check_h264(64, 96, 16)
    with pytest.raises(InputError, match="frames of 95x63 can't be sent as H.264"):
        codec.check_h264(63, 95, 16)
