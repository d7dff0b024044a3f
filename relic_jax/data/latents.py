"""Clips as the diffusion model trains on them: latents of the VAE, features of the text encoder, poses and actions.

A record of a latent data set (T frames are L latents):

    latents    float16 [L, h, w, C]  normalised
    rotations  float32 [T, 3, 3]     as in the clip (`data.clip`), like the next three
    positions  float32 [T, 3]
    actions    float32 [T, 13]
    unit       float32
    text       float16 [N, D]        features of the caption, zero beyond its end
    seed       int64
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, UInt8

from relic_jax import pixels
from relic_jax.camera.actions import ACTIONS
from relic_jax.config import RelicConfig, VAEConfig
from relic_jax.data import augment, shards
from relic_jax.data.clip import Clip
from relic_jax.data.loader import Clips
from relic_jax.errors import InputError
from relic_jax.models import text, vae
from relic_jax.models.module import Params
from relic_jax.models.tokenizer import Tokenizer

_PALINDROME_SEED = 1
_CHUNK = 8  # groups of frames encoded at once: the most that memory must hold


def features(cfg: RelicConfig) -> tfds.features.FeaturesDict:
    """The TFDS features of an encoded clip."""
    height, width = cfg.latent_size
    tensor, scalar = tfds.features.Tensor, tfds.features.Scalar
    return tfds.features.FeaturesDict(
        {
            "latents": tensor(shape=(None, height, width, cfg.vae.latent_channels), dtype=np.float16, encoding="bytes"),
            "rotations": tensor(shape=(None, 3, 3), dtype=np.float32),
            "positions": tensor(shape=(None, 3), dtype=np.float32),
            "actions": tensor(shape=(None, len(ACTIONS)), dtype=np.float32),
            "unit": scalar(np.float32),
            "text": tensor(shape=(cfg.text.length, cfg.text.dim), dtype=np.float16, encoding="bytes"),
            "seed": scalar(np.int64),
        }
    )


def encode_frames(params: Params, cfg: VAEConfig, video: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "L h w C"]:
    """A video of T = 4 (L - 1) + 1 frames as normalised float32 latents, in a stream of constant memory."""
    stride = cfg.temporal_stride
    groups, rest = divmod(len(video) - 1 + stride, stride)
    if rest:
        raise InputError(f"video has {len(video)} frames, expected {stride} L + 1")
    chunk = max(n for n in range(1, _CHUNK + 1) if groups % n == 0)
    frames = np.concatenate([np.repeat(video[:1], stride - 1, axis=0), video])  # those slots are not read
    cache = vae.init_encode_cache(cfg, 1, *video.shape[1:3])
    latents = []
    for part in np.split(frames, groups // chunk):
        cache, encoded = _encode(params, cfg, cache, part[None])
        latents.append(np.asarray(encoded[0]))
    return np.concatenate(latents)


@functools.partial(jax.jit, static_argnames="cfg", donate_argnames="cache")
def _encode(
    params: Params, cfg: VAEConfig, cache: vae.VAECache, frames: UInt8[Any, "B T H W 3"]
) -> tuple[vae.VAECache, Float[jax.Array, "B L h w C"]]:
    return vae.encode(params, cfg, cache, pixels.to_float(frames))


def encode_clip(params: Params, cfg: RelicConfig, tokenizer: Tokenizer, clip: Clip) -> dict[str, Any]:
    """A clip's record; `params` has the keys `vae` and `text`."""
    embedded = text.embed(params["text"], cfg.text, tokenizer, [clip.caption])[0]
    record = clip.record()
    return {
        "latents": encode_frames(params["vae"], cfg.vae, clip.video).astype(np.float16),
        "text": np.asarray(embedded).astype(np.float16),
        **{name: record[name] for name in ("rotations", "positions", "actions", "unit", "seed")},
    }


def fingerprint(params: Params) -> str:
    """Tells weights apart: latents of other weights must not mix."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How the shards of a latent split are made (`workers.Job`).

    Fields:
      data: directory of the clips.
      params: with the keys `vae` and `text`.
      made_from: what the latents depend on, in words; a split made from anything else is refused.
      variants: records of each clip: as it is, then changed by `augment.VARIANTS` in turn, so that 2 of each
        give a data set that holds every kind.
      palindromes: share of the records that turn back somewhere in their second half (`augment.palindrome`), drawn
        by the record's number.

    Raises:
      InputError: the clips don't have the config's size or rate.
    """

    data: str
    params: Params
    cfg: RelicConfig
    tokenizer: Tokenizer
    made_from: dict[str, Any]
    variants: int = 1
    palindromes: float = 0.0
    description: str = "Clips encoded to latents and text features, with camera poses and actions."

    def __post_init__(self) -> None:
        size, expected = self._clips()[0].video.shape[1:3], (self.cfg.video.height, self.cfg.video.width)
        if size != expected:
            raise InputError(f"clips are of {size[0]}x{size[1]} pixels, the config has {expected[0]}x{expected[1]}")

    def _clips(self) -> Clips:
        return Clips(self.data, fps=self.cfg.video.fps)

    @property
    def features(self) -> tfds.features.FeaturesDict:
        return features(self.cfg)

    def write(self, split: shards.Split, shard: int, done: Callable[[], None]) -> None:
        """Encodes and writes one shard; calls `done` after each record."""
        clips, params = self._clips(), jax.tree.map(jnp.asarray, self.params)

        def records() -> Iterator[dict[str, Any]]:
            for number in split.shards[shard]:
                clip, copy = divmod(number, self.variants)
                kind = 1 + (clip + copy - 1) % (len(augment.VARIANTS) - 1) if copy else 0
                changed = augment.variant(clips[clip], augment.VARIANTS[kind])
                rng = np.random.default_rng([_PALINDROME_SEED, number])
                if rng.random() < self.palindromes:
                    changed = augment.palindrome(changed, augment.draw_pivot(changed.frames, rng))
                yield encode_clip(params, self.cfg, self.tokenizer, changed)
                done()

        split.write(shard, self.features, records())
