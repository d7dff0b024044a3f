"""How unlike two sets of videos are: the Frechet distance between what the VAE's encoder sees in them.

FID (arXiv 1706.08500) with the encoder of the model's own VAE in place of Inception: each set is summed up by mean and
covariance of its features, and the distance is that of the two Gaussians. The encoder is causal over time, so motion
counts. Distances are comparable only for one VAE and equally many videos of one length: few samples make them larger.
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from relic_jax import pixels
from relic_jax.config import VAEConfig
from relic_jax.models import vae
from relic_jax.models.module import Params


def features(params: Params, cfg: VAEConfig, videos: UInt8[np.ndarray, "N T H W 3"]) -> Float[np.ndarray, "M D"]:
    """One vector for each latent frame of each video but the first, which is the picture: a mean over the frame."""
    return np.concatenate([np.asarray(_features(params, cfg, video)) for video in videos])


@partial(jax.jit, static_argnames="cfg")
def _features(params: Params, cfg: VAEConfig, video: UInt8[Array, "T H W 3"]) -> Float[Array, "L D"]:
    frames = pixels.to_float(video[None])
    return vae.encoder_features(params, cfg, frames)[0, 1:].mean((1, 2))


def distance(a: Float[np.ndarray, "M D"], b: Float[np.ndarray, "N D"]) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of the two sets' means and covariances."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean = np.square(a.mean(0) - b.mean(0)).sum()
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    root = _root(cov_a)
    # C_a C_b has the eigenvalues of the symmetric matrix root C_b root, whose root is safe to take.
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    return float(mean + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def _root(covariance: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """The symmetric square root."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
