"""How near a frame is to the truth by structure: SSIM, one number a frame (PSNR is `pixels.psnr`).

Frames are uint8 or, as the model makes them, float in [-1, 1]; both are brought to [0, 1] first.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float

from relic_jax.pixels import Frames, unit

_WINDOW = 11
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03


def ssim(frames: Frames, truth: Frames) -> Float[Array, "*B"]:
    """Structural similarity, mean over the channels and the pixels whose window lies inside the frame.

    Wang et al. 2004: Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03; what scikit-image gives with
    `gaussian_weights=True, use_sample_covariance=False`. Frames are at least 11 pixels high and wide.
    """
    x, y = unit(frames), unit(truth)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x * mean_x
    variance_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean((-3, -2, -1))


def _blur(x: Float[Array, "*B H W 3"]) -> Float[Array, "*B h w 3"]:
    """Gaussian mean at every place where the whole window fits."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    height, width = x.shape[-3] - _WINDOW + 1, x.shape[-2] - _WINDOW + 1
    x = sum(w * x[..., i : i + height, :, :] for i, w in enumerate(weights))
    return sum(w * x[..., i : i + width, :] for i, w in enumerate(weights))
