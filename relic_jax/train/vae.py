"""The VAE's training loss: L1 and MSE of a draw's reconstruction, and a small KL term."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from relic_jax.config import VAEConfig
from relic_jax.models.module import Params
from relic_jax.models.vae import decode_sample, encode_moments
from relic_jax.train.stage import VAEOptions


def loss(
    params: Params,
    cfg: VAEConfig,
    video: Float[Array, "B T H W 3"],
    key: PRNGKeyArray,
    weights: VAEOptions,
    anchor: Params | None = None,
    compute: str = "float32",
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss and its metrics on whole clips.

    `latent_mean` and `latent_std` take no part, so their gradients are zero: keep weight decay off them.

    Args:
      params: of `models.vae.VAE`.
      cfg: static under jit.
      video: T = 4 (L - 1) + 1 frames in [-1, 1].
      key: of the draw from the posterior.
      weights: `l1`, `mse`, `log_mse` of each clip, and `kl` of the divergence from N(0, 1), in nats, mean over the
        latent's numbers. Under `decoder_only` nothing reaches the encoder.
      anchor: the parameters whose latents `weights.anchor` holds on to.
      compute: the dtype of the convolutions; errors, the draw and the divergence are in float32.

    Returns:
      The loss, and `l1`, `mse` (pixels in [-1, 1]), `kl`, `psnr_db` (of the clipped draw, peak to peak 2),
      `posterior_std` (mean); with an anchor `moved`, the root mean square distance of the latents from its.
    """
    given = video.astype(compute)
    mean, logvar = (x.astype(jnp.float32) for x in encode_moments(params, cfg, given))
    if weights.decoder_only:
        mean, logvar = jax.lax.stop_gradient((mean, logvar))
    # Beyond these bounds (diffusers' own) the exponential overflows or the draw has no spread.
    logvar = jnp.clip(logvar, -30.0, 20.0)
    std = jnp.exp(0.5 * logvar)
    draw = mean + std * jax.random.normal(key, mean.shape, mean.dtype)
    frames = decode_sample(params, cfg, draw.astype(compute)).astype(jnp.float32)
    error = frames - video
    l1, mse = jnp.abs(error).mean(), (error**2).mean()
    kl = 0.5 * (mean**2 + std**2 - 1 - logvar).mean()
    clipped = ((jnp.clip(frames, -1, 1) - video) ** 2).mean()
    metrics = {
        "l1": l1,
        "mse": mse,
        "kl": kl,
        "psnr_db": 10 * jnp.log10(4 / clipped),
        "posterior_std": std.mean(),
    }
    total = weights.l1 * l1 + weights.mse * mse + weights.kl * kl
    if weights.log_mse:
        total += weights.log_mse * jnp.log10((error**2).mean(axis=(1, 2, 3, 4))).mean()
    if anchor is not None:
        kept = encode_moments(anchor, cfg, given)[0].astype(jnp.float32)
        distance = (((mean - kept) / anchor["latent_std"]) ** 2).mean()
        total += weights.anchor * distance
        metrics["moved"] = jnp.sqrt(distance)
    return total, metrics
