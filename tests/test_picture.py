"""Pictures of every kind that people have: what is seen, what is said, what is refused."""

import os
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relic_jax import picture, video
from relic_jax.errors import InputError
from relic_jax.pixels import to_uint8
from tests.test_video import smooth_frames

RAMP = np.linspace(0, 255, 96).round().astype(np.uint8)  # from black to white


def test_a_picture_of_the_right_size_is_read_exactly(tmp_path):
    pixels = smooth_frames(1)[0]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image, note = picture.read(tmp_path / "a.png", 64, 96)
    assert note is None and image.dtype == np.float32 and image.shape == (64, 96, 3)
    np.testing.assert_array_equal(to_uint8(image), pixels)
    assert -1 <= image.min() and image.max() <= 1


def test_another_aspect_is_cropped_about_the_centre(tmp_path):
    pixels = np.zeros((64, 192, 3), np.uint8)
    pixels[:, 48:144] = 200  # the middle half
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image, note = picture.read(tmp_path / "wide.png", 32, 48)
    assert image.shape == (32, 48, 3)
    np.testing.assert_array_equal(to_uint8(image)[:, 4:-4], 200)  # beyond the filter's reach
    assert note == f"{tmp_path}/wide.png is 192x64, cropped about its centre and resized to 48x32"


def test_the_same_aspect_is_only_resized(tmp_path):
    Image.fromarray(smooth_frames(1)[0]).save(tmp_path / "a.png")
    _, note = picture.read(tmp_path / "a.png", 32, 48)
    assert note.endswith("is 96x64, resized to 48x32")


def test_grey_palette_and_turned_pictures_are_read(tmp_path):
    Image.new("L", (96, 64), 128).save(tmp_path / "grey.png")
    assert picture.read(tmp_path / "grey.png", 64, 96)[0].shape == (64, 96, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (64, 96)).save(tmp_path / "turned.jpg", exif=exif)
    assert picture.read(tmp_path / "turned.jpg", 64, 96)[1].endswith(
        "turned.jpg is turned as its EXIF orientation says"
    )


def test_a_missing_picture_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere.png.*there is none"):
        picture.read(tmp_path / "nowhere.png", 64, 96)


@pytest.mark.parametrize("content", [b"", b"this is not a picture", "truncated"])
def test_an_unreadable_picture_is_refused(tmp_path, content):
    path = tmp_path / "bad.png"
    if content == "truncated":
        Image.fromarray(smooth_frames(1)[0]).save(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.png.*expected an image file that can be read"):
        picture.read(path, 64, 96)


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(InputError, match="expected an image file"):
        picture.read(tmp_path, 64, 96)


def grey(values):
    return np.broadcast_to(values, (64, 96))


def read(path):
    pixels, note = picture.read(path, 64, 96)
    return to_uint8(pixels), (note or "").removeprefix(f"{path} ")


def write(path, values, **options):
    Image.fromarray(values).save(path, **options)
    return path


def test_sixteen_bits_are_scaled(tmp_path):
    deep = np.ascontiguousarray(grey(RAMP.astype(np.uint16) * 257))
    wanted = np.stack([grey(RAMP)] * 3, -1)
    for name in ("deep.png", "deep.tiff", "deep.pgm"):
        seen, said = read(write(tmp_path / name, deep))
        np.testing.assert_array_equal(seen, wanted)
        assert said == "has 16 bits a pixel, scaled to 8"


def test_floats_count_from_black_at_0_to_white_at_1(tmp_path):
    seen, said = read(write(tmp_path / "float.tiff", np.ascontiguousarray(grey(RAMP / np.float32(255)))))
    np.testing.assert_array_equal(seen[..., 0], grey(RAMP))
    assert said == "holds floats, of which 0 is black and 1 white"


@pytest.mark.parametrize("white", [255.0, 2.0, np.nan])
def test_floats_of_another_range_are_refused(tmp_path, white):
    path = write(tmp_path / "float.tiff", np.ascontiguousarray(grey(RAMP / np.float32(255) * np.float32(white))))
    with pytest.raises(InputError, match=r"float.tiff': expected floats in \[0, 1\], got (0|nan) to"):
        read(path)


def test_integers_of_which_nothing_says_what_is_white_are_refused(tmp_path):
    path = write(tmp_path / "int.tiff", np.ascontiguousarray(grey(RAMP.astype(np.int32) * 1000)))
    with pytest.raises(InputError, match="32-bit integers from 0 to 255000, of which nothing says what is white"):
        read(path)


def test_what_is_hidden_under_transparency_stays_hidden(tmp_path):
    colours = np.zeros((64, 96, 4), np.uint8)
    colours[..., 0], colours[:, :48, 3] = 200, 255  # red, its right half transparent
    half = np.full((64, 48, 1), 128, np.uint8)
    for name, values in (("rgba", colours), ("grey", colours[..., [0, 3]])):
        seen, said = read(write(tmp_path / f"{name}.png", values))
        assert said == "is transparent in places, which are laid over white"
        assert (seen[:, 48:] == 255).all() and (seen[:, :48, 0] == 200).all()
    colours[:, 48:, 3:] = half
    seen, _ = read(write(tmp_path / "half.png", colours))
    np.testing.assert_array_equal(np.unique(seen[:, 48:].reshape(-1, 3), axis=0), [[227, 127, 127]])


def test_an_opaque_alpha_channel_says_nothing(tmp_path):
    values = np.full((64, 96, 4), 255, np.uint8)
    values[..., :3] = smooth_frames(1)[0]
    seen, said = read(write(tmp_path / "opaque.png", values))
    np.testing.assert_array_equal(seen, values[..., :3])
    assert not said


def test_a_palettes_transparent_colour_is_laid_over_white(tmp_path):
    image = Image.fromarray((np.arange(96)[None] // 48 * np.ones((64, 1))).astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "palette.png", transparency=1)
    seen, said = read(tmp_path / "palette.png")
    assert said == "is transparent in places, which are laid over white"
    assert (seen[:, :48] == (10, 20, 30)).all() and (seen[:, 48:] == 255).all()
    image.save(tmp_path / "plain.png")
    assert read(tmp_path / "plain.png")[1] == "" and (read(tmp_path / "plain.png")[0][:, 48:] == (40, 50, 60)).all()


def test_cmyk_is_converted_and_said(tmp_path):
    Image.new("CMYK", (96, 64), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    seen, said = read(tmp_path / "print.jpg")
    assert said == "is converted to RGB, without a colour profile"
    assert np.abs(seen.astype(int) - (255, 0, 0)).max() <= 2


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (96, 64), (value, 0, 0)) for value in (250, 10, 20)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    seen, said = read(tmp_path / "moving.gif")
    assert said == "has several frames, its first is taken" and (seen[..., 0] == 250).all()


@pytest.mark.parametrize("size", [(1, 1), (4000, 4), (4, 4000)])
def test_any_shape_is_cropped_and_resized(tmp_path, size):
    Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "odd.png")
    seen, said = read(tmp_path / "odd.png")
    assert (seen == (9, 8, 7)).all() and said.startswith(
        f"is {size[0]}x{size[1]}, cropped about its centre and resized"
    )


KINDS = {
    "HEIC, a phone's format; save it as JPEG or PNG": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "a video; take a frame": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(64),
    "a video; take a frame of it": b"\x1aE\xdf\xa3" + bytes(64),
    "SVG, a drawing without pixels; export it as PNG": b'<?xml version="1.0"?>\n<svg width="3"/>',
    "a PDF; export the page as PNG": b"%PDF-1.7\n" + bytes(64),
    "a Git LFS pointer, not the file itself": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "an empty file": b"",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_picture_is_called_what_it_is(tmp_path, kind):
    (tmp_path / "it.png").write_bytes(KINDS[kind])
    with pytest.raises(InputError, match=f"it.png': expected an image file that can be read, got {kind}"):
        read(tmp_path / "it.png")


def test_a_real_video_is_called_one(tmp_path):
    video.write_video(tmp_path / "a.mp4", smooth_frames(3), 16)
    with pytest.raises(InputError, match="got a video"):
        read(tmp_path / "a.mp4")


def huge_png(path, side):
    """A PNG of side x side black pixels, without making them."""

    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = side.to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    squeeze, row = zlib.compressobj(1), bytes(side + 1)
    data = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [10_100, 14_000])  # beyond ours; beyond Pillow's own
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, side):
    huge_png(tmp_path / "huge.png", side)
    begun = time.process_time()
    with pytest.raises(InputError, match="huge.png': expected at most 100 megapixels, got more; make it smaller"):
        read(tmp_path / "huge.png")
    assert time.process_time() - begun < 0.3  # decoding alone takes longer


@pytest.mark.timeout(20)
def test_a_pipe_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    for path, kind in ((tmp_path / "pipe.png", "pipe"), (tmp_path / "link.png", "pipe"), ("/dev/zero", "device")):
        with pytest.raises(InputError, match=f"expected an image file, got a {kind}"):
            picture.read(path, 64, 96)


@settings(max_examples=300)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]), st.data())
def test_a_damaged_picture_is_read_or_refused_in_one_sentence(tmp_path_factory, kind, data):
    path = tmp_path_factory.getbasetemp() / "damaged"
    Image.fromarray(smooth_frames(1, 16, 24)[0]).save(path, format=kind)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        pixels, _ = picture.read(path, 16, 24)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(pixels).all() and np.abs(pixels).max() <= 1
