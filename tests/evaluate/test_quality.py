"""SSIM against its definition and against scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.evaluate import quality

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture
def frames():
    """Noise, a ramp that wraps around, and both with noise of +-20 levels."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (2, 24, 32, 3)).astype(np.uint8)
    truth[1] = ((np.mgrid[:24, :32].sum(0) * 4) % 256)[..., None]
    return np.clip(truth + rng.integers(-20, 21, truth.shape), 0, 255).astype(np.uint8), truth


def test_values_of_scikit_image(frames):
    """0.26.0: structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)."""
    np.testing.assert_allclose(quality.ssim(*frames), [0.9876144996722566, 0.6040257840688102], atol=1e-6)


def test_ssim_is_the_mean_over_all_whole_windows(frames):
    x, y = (f[0].astype(float) / 255 for f in frames)
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(g, g)[..., None] / g.sum() ** 2
    values = []
    for i in range(24 - 10):
        for j in range(32 - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (weights * a).sum((0, 1)), (weights * b).sum((0, 1))
            va, vb = (weights * (a - ma) ** 2).sum((0, 1)), (weights * (b - mb) ** 2).sum((0, 1))
            cov = (weights * (a - ma) * (b - mb)).sum((0, 1))
            values.append((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    assert quality.ssim(*frames)[0] == pytest.approx(np.mean(values), abs=1e-6)


def test_equal_frames():
    frames = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    np.testing.assert_allclose(quality.ssim(frames, frames), 1, atol=1e-6)


def test_bytes_and_floats_agree_under_jit(frames):
    floats = [jnp.asarray(f, jnp.float32) / 127.5 - 1 for f in frames]
    np.testing.assert_allclose(jax.jit(quality.ssim)(*floats), quality.ssim(*frames), atol=1e-5)
