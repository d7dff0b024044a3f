"""Videos and sheets."""

import av
import numpy as np
import pytest
from PIL import Image

from relic_jax import video
from relic_jax.camera import keys
from relic_jax.errors import InputError


def smooth_frames(count, height=64, width=96):
    t, y, x = np.mgrid[:count, :height, :width]
    channels = np.sin(x / 9 + t / 5), np.sin(y / 7 - t / 9), np.cos((x + y) / 20)
    return np.rint(127.5 + 100 * np.stack(channels, -1)).astype(np.uint8)


def decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        return frames, {"rate": stream.average_rate, "codec": stream.codec_context.name, "format": stream.pix_fmt}


def psnr(one, other):
    return 10 * np.log10(255**2 / np.square(one.astype(float) - other).mean((1, 2, 3)))


# videos


def test_a_video_comes_back_as_it_was_written(tmp_path):
    frames = smooth_frames(33)
    video.write_video(tmp_path / "a.mp4", frames, 16)
    got, about = decoded(tmp_path / "a.mp4")
    assert got.shape == frames.shape
    assert about == {"rate": 16, "codec": "h264", "format": "yuv420p"}
    # what half-resolution colour alone makes of the frames; H.264 adds next to nothing
    halved = [av.VideoFrame.from_ndarray(f, format="rgb24").reformat(format="yuv420p") for f in frames]
    wanted = np.stack([f.to_ndarray(format="rgb24") for f in halved]).astype(float)
    assert psnr(wanted, frames).min() > 36 and psnr(got, wanted).min() > 40
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_writing_in_pieces_is_writing_at_once(tmp_path):
    frames = smooth_frames(40)
    video.write_video(tmp_path / "whole.mp4", frames, 16)
    with video.video_writer(tmp_path / "pieces.mp4", 16) as writer:
        for piece in np.split(frames, [13, 29]):
            writer.write(piece)
    assert (tmp_path / "whole.mp4").read_bytes() == (tmp_path / "pieces.mp4").read_bytes()


def test_nothing_is_overwritten_when_it_breaks_off(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"precious")
    with pytest.raises(KeyboardInterrupt), video.video_writer(tmp_path / "a.mp4", 16) as writer:
        writer.write(smooth_frames(5))
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"precious"


def test_odd_sides_and_no_frames_are_refused(tmp_path):
    with pytest.raises(InputError, match="even sides, got 95x64"):
        video.write_video(tmp_path / "odd.mp4", smooth_frames(2, width=95), 16)
    with pytest.raises(ValueError, match="at least one frame"):
        video.write_video(tmp_path / "none.mp4", smooth_frames(2)[:0], 16)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/out\.png can't be written: Not a directory"):
        video.write_image(tmp_path / "file" / "out.png", Image.new("RGB", (2, 2)))


# sheets


def test_contact_sheet_runs_from_the_first_to_the_last_frame(tmp_path):
    frames = np.repeat(np.arange(89, dtype=np.uint8), 64 * 96 * 3).reshape(89, 64, 96, 3)
    held = ["", *keys.held("w-32,wl-48,none-8")]
    chosen = video.evenly_spaced(89)
    sheet = video.contact_sheet(frames[chosen], [held[t] for t in chosen], chosen / 16)
    assert sheet.size == (6 * (288 + 4) + 4, 4 * (192 + 4) + 4)
    assert sheet.getpixel((150, 100)) == (0, 0, 0)
    assert sheet.getpixel((sheet.width - 150, sheet.height - 100)) == (88, 88, 88)
    video.write_image(tmp_path / "sheet.png", sheet)
    assert Image.open(tmp_path / "sheet.png").size == sheet.size


def test_a_sheet_of_a_few_frames_has_one_row():
    np.testing.assert_array_equal(video.evenly_spaced(2), [0, 1])
    assert video.contact_sheet(smooth_frames(2), ["", "W"], np.array([0.0, 0.1])).size == (2 * (288 + 4) + 4, 192 + 8)


@pytest.mark.parametrize("key", keys.KEYS)
def test_every_key_has_a_cap_that_lights_up(key):
    plain, lit = (np.asarray(video.annotated(smooth_frames(1)[0], held, 0.0, 3)) for held in ("", key.upper()))
    assert 100 < (plain != lit).any(-1).sum() < 500  # one cap


def test_contact_sheet_needs_the_keys_of_every_frame():
    with pytest.raises(ValueError):
        video.contact_sheet(smooth_frames(3), ["W"], np.arange(3.0))


def test_image_grid_places_row_by_row():
    images = [np.full((8, 10, 3), value, np.uint8) for value in (10, 20, 30)]
    grid = np.asarray(video.image_grid(images, columns=2, scale=2))
    assert grid.shape == (2 * 20 + 4, 2 * 24 + 4, 3)
    assert [grid[10, 10, 0], grid[10, 40, 0], grid[30, 10, 0]] == [10, 20, 30]


def test_side_by_side_makes_a_video_one_can_write(tmp_path):
    one, other = smooth_frames(3), 255 - smooth_frames(3)
    joined = video.side_by_side({"truth": one, "relic": other}, scale=2)
    assert joined.shape == (3, 128 + 24, 384, 3)
    error = np.abs(joined[:, 24:, :190].astype(float) - np.repeat(np.repeat(one, 2, 1), 2, 2)[:, :, :190])
    assert error.mean() < 6
    video.write_video(tmp_path / "both.mp4", joined, 16)
