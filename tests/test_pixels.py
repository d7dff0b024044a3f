"""Frames as bytes and as the model sees them, and PSNR where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax import pixels

BYTES = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)  # every value


@pytest.mark.parametrize(("convert", "kind"), [(np.asarray, np.ndarray), (jnp.asarray, jax.Array)])
def test_bytes_come_back_and_keep_their_library(convert, kind):
    floats = pixels.to_float(convert(BYTES))
    assert isinstance(floats, kind) and floats.dtype == np.float32
    assert (float(floats.min()), float(floats.max())) == (-1, 1)
    np.testing.assert_allclose(floats, BYTES / 255 * 2 - 1, atol=1e-6)
    back = pixels.to_uint8(floats)
    assert isinstance(back, kind) and back.dtype == np.uint8
    np.testing.assert_array_equal(back, BYTES)
    np.testing.assert_array_equal(jax.jit(pixels.to_uint8)(floats), BYTES)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_floats_are_rounded_to_the_nearest_byte_and_clipped(convert):
    values = np.array([-7, -1, -1 + 0.9 / 255, -1 + 1.1 / 255, 0.999, 1, 3], np.float32)
    frame = convert(np.broadcast_to(values[None, :, None], (1, 7, 3)))
    np.testing.assert_array_equal(pixels.to_uint8(frame)[0, :, 0], [0, 0, 0, 1, 255, 255, 255])


def test_half_precision_is_converted_as_float32():
    frame = jnp.full((1, 1, 3), 0.5, jnp.bfloat16)
    np.testing.assert_array_equal(pixels.to_uint8(frame), 191)  # 1.5 * 127.5 = 191.25


def test_either_kind_of_frame_in_the_unit_range():
    np.testing.assert_allclose(pixels.unit(BYTES), BYTES / 255, rtol=1e-6)
    np.testing.assert_allclose(pixels.unit(np.full((1, 1, 3), 5, np.float32)), 1)
    np.testing.assert_allclose(pixels.unit(np.full((1, 1, 3), -0.5, np.float32)), 0.25)


def test_psnr_of_a_known_error_frame_by_frame():
    truth = np.zeros((2, 3, 16, 16, 3), np.float32)
    made = truth.copy()
    made[0] += 0.2  # 0.1 of the range: 20 dB
    made[1, :2] += 0.02
    made[1, 2, :8] += 0.2  # half of the pixels: twice as good, 3 dB
    expected = [[20, 20, 20], [40, 40, 20 + 10 * np.log10(2)]]
    np.testing.assert_allclose(pixels.psnr(made, truth), expected, rtol=1e-5)


def test_psnr_of_scikit_image():
    """0.26.0, the frames of tests/evaluate/test_quality.py."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (2, 24, 32, 3)).astype(np.uint8)
    truth[1] = ((np.mgrid[:24, :32].sum(0) * 4) % 256)[..., None]
    made = np.clip(truth + rng.integers(-20, 21, truth.shape), 0, 255).astype(np.uint8)
    np.testing.assert_allclose(pixels.psnr(made, truth), [26.882292836847785, 26.584817966858676], rtol=1e-6)


def test_psnr_of_equal_frames_is_infinite_and_floats_are_clipped_as_a_video_would_be():
    assert np.isposinf(pixels.psnr(BYTES, BYTES)).all()
    truth = np.ones((1, 16, 16, 3), np.float32)
    assert np.isposinf(pixels.psnr(truth + 0.5, truth)).all()


def test_psnr_of_bytes_and_floats_agrees():
    other = np.roll(BYTES, 3, axis=1)
    floats = pixels.to_float(BYTES), pixels.to_float(other)
    np.testing.assert_allclose(pixels.psnr(*floats), pixels.psnr(BYTES, other), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(pixels.psnr)(*floats), pixels.psnr(BYTES, other), rtol=1e-5)


@pytest.mark.parametrize(
    ("color", "expected"),  # published values of CIE Lab under D65
    [
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
    ],
)
def test_lab(color, expected):
    assert pixels.lab(np.array(color)) == pytest.approx(expected, abs=0.1)
