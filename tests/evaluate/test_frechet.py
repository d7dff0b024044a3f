"""The Frechet distance against its closed form, and features of videos."""

import numpy as np
import pytest

from relic_jax.config import RelicConfig
from relic_jax.evaluate import frechet
from tests.small import random_params

pytestmark = pytest.mark.usefixtures("compile_once")

CFG = RelicConfig.tiny()


def test_distance_of_two_gaussians():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    standard = rng.normal(size=(200_000, 3))
    a = standard * [1.0, 2.0, 3.0] @ turn  # commuting covariances: sum over axes of (difference of deviations)^2
    b = standard * [2.0, 2.0, 1.0] @ turn + [0.5, 0.0, 0.0]
    assert frechet.distance(a, b) == pytest.approx(0.25 + 1 + 0 + 4, rel=0.02)
    assert frechet.distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet.distance(a, b) == pytest.approx(frechet.distance(b, a))


def test_fewer_samples_than_features_are_no_problem():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 16))
    assert frechet.distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet.distance(a, b) > 0


def test_a_video_counts_by_the_latent_and_noise_is_farther_than_a_shift():
    params = random_params(CFG)["vae"]
    rng = np.random.default_rng(0)
    videos = rng.integers(0, 255, (3, 9, 64, 96, 3), dtype=np.uint8)
    videos = np.repeat(videos[:, :, ::8, ::8], 8, axis=2).repeat(8, axis=3)
    seen = frechet.features(params, CFG.vae, videos)
    assert seen.shape == (3 * 2, CFG.vae.base_dim * CFG.vae.multipliers[-1]) and np.isfinite(seen).all()
    brighter = np.clip(videos.astype(int) + 3, 0, 255).astype(np.uint8)
    noise = rng.integers(0, 255, videos.shape, dtype=np.uint8)
    near, far = (frechet.distance(frechet.features(params, CFG.vae, x), seen) for x in (brighter, noise))
    assert 0 <= near < far
