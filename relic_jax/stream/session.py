"""The stateful shell around `rollout` that people hold: open a picture, play keys, keep, go back, branch.

session = Session.open("relic_jax/assets/tiny", "picture.png", "A room with a red floor.")
for frames in session.play("w-32,wl-48"):   # uint8 [n, H, W, 3], as blocks are made
    ...
session.save("walk.safetensors")
other = session.branch(seed=1)
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax
from jaxtyping import Array, Float, UInt8

from relic_jax import files, outside, picture, pixels, rng
from relic_jax.camera import actions as camera_actions
from relic_jax.camera import keys
from relic_jax.config import RelicConfig, VAEConfig, first_difference, from_config_dict
from relic_jax.errors import InputError
from relic_jax.models import bundle, text, vae
from relic_jax.models.layers import cast_kernels
from relic_jax.models.module import Params
from relic_jax.stream import rollout

_KEY = "state/key"  # the one leaf that is no plain array

# One jitted function each for all sessions of a process: a second session of a config compiles nothing.
_start = partial(jax.jit, static_argnames="cfg")(rollout.start)
_step = partial(jax.jit, static_argnames="cfg", donate_argnames="state")(rollout.step)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Live:
    """What changes from block to block: the transformer's state and the decoder's."""

    state: rollout.State
    decoder: vae.VAECache


class Session:
    """One walk. Make it with `open` or `load`.

    Attributes:
      config: the model's, as it runs here.
      latents: float32 [L, h, w, C], all made so far, normalised; the first is the picture's.
      actions: float32 [4 L, 13], what conditioned them, a row a frame; the picture's four are static.
    """

    def __init__(self, model: bundle.Bundle, params: Params, live: _Live, latents: np.ndarray, actions: np.ndarray):
        self.config = model.config
        self.latents = latents
        self.actions = actions
        self._model, self._params, self._live = model, params, live

    @classmethod
    def open(
        cls,
        model: bundle.Bundle | str | os.PathLike[str],
        image: str | os.PathLike[str] | Float[np.ndarray, "H W 3"],
        prompt: str,
        seed: int = 0,
    ) -> Session:
        """A session that begins at a picture.

        Args:
          model: a bundle or its folder.
          image: a picture file, cropped and resized as needed, or pixels in [-1, 1] of the model's size.
          prompt: a sentence that describes the scene, not what happens in it.
          seed: all noise of the session comes from it; from 0 to 2^64 - 1.

        Raises:
          InputError: the model, picture, prompt or seed can't be used.
        """
        model = model if isinstance(model, bundle.Bundle) else bundle.load(model)
        cfg, sentence = model.config, text.clean(prompt)
        size = (cfg.video.height, cfg.video.width)
        if isinstance(image, str | os.PathLike):
            image, _ = picture.read(image, *size)
        if image.shape != (*size, 3):
            raise InputError(f"image has shape {image.shape}, expected {(*size, 3)}, pixels in [-1, 1]")
        image = outside.array(image, "image", ("row", "column", "channel"), least=-1, most=1).astype(np.float32)
        outside.seed(seed)
        params = _serving(model)
        # Encoding runs in float32 whatever the compute precision: a bf16 latent 0 makes the whole walk drift.
        latent = _encode(model.params["vae"], cfg.vae, jnp.asarray(image)[None])
        words = text.embed(model.params["text"], cfg.text, model.tokenizer, [sentence])
        live = _begin(cfg, latent, words, seed)
        empty = np.zeros((0, *cfg.latent_size, cfg.vae.latent_channels), np.float32)
        return cls(model, params, live, empty, np.zeros((0, 13), np.float32))

    @property
    def frames(self) -> int:
        """Frames shown so far, the picture included."""
        return max(len(self.actions) - rollout.FRAMES_PER_LATENT + 1, 0)

    @property
    def pose(self) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
        """World-to-camera rotation and camera centre of the last frame; the picture is the origin."""
        return np.asarray(self._live.state.rotation[0]), np.asarray(self._live.state.position[0])

    def play(
        self, actions: str | Float[np.ndarray, "..."], speed: float = 1.0
    ) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        """Generates the frames of these actions, block by block as you iterate.

        The very first chunk also has the picture. Blocks are whole: when the actions end within one, the camera
        stands still for the rest of it (a block is `stream.block` latents of 4 frames).

        Args:
          actions: a key script ("w-32,wl-48") or an action a frame.
          speed: factor on the script's moves and turns.

        Raises:
          InputError: the script or the actions' shape is wrong, or a number is not finite or out of range (names
            the frame); the session is as it was.
        """
        return self._play(camera_actions.checked(keys.parse(actions, speed) if isinstance(actions, str) else actions))

    def _play(self, actions: Float[np.ndarray, "T 13"]) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        if not len(self.actions):
            actions = np.concatenate([camera_actions.static_actions(rollout.FRAMES_PER_LATENT), actions])
        size = self.config.stream.block * rollout.FRAMES_PER_LATENT
        actions = np.concatenate([actions, camera_actions.static_actions(-len(actions) % size)])
        for block in actions.reshape(-1, size, 13):
            yield self._block(block)

    def _block(self, actions: Float[np.ndarray, "T 13"]) -> UInt8[np.ndarray, "N H W 3"]:
        first = len(self.actions) == 0
        state, latents = _step(self._params["dit"], self.config, self._live.state, jnp.asarray(actions)[None])
        decoder, frames = _decode(self._params["vae"], self.config.vae, self._live.decoder, latents)
        self._live = _Live(state, decoder)
        self.latents = np.concatenate([self.latents, np.asarray(latents[0])])
        self.actions = np.concatenate([self.actions, actions])
        return np.asarray(frames[0])[rollout.FRAMES_PER_LATENT - 1 if first else 0 :]

    def branch(self, seed: int | None = None) -> Session:
        """A second session that goes on from here on its own; with the same noise, or another seed's."""
        live = jax.tree.map(jnp.copy, self._live)  # `play` donates the state, so the two must not share it
        if seed is not None:
            live = dataclasses.replace(live, state=dataclasses.replace(live.state, key=rng.from_seed(seed)))
        return Session(self._model, self._params, live, self.latents, self.actions)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything but the model, memory included: the loaded session goes on bit for bit.

        Raises:
          InputError: the file can't be written.
        """
        tensors = _leaves(self._live) | {"latents": jnp.asarray(self.latents), "actions": jnp.asarray(self.actions)}
        metadata = {"config": json.dumps(dataclasses.asdict(self.config))}
        try:
            with files.replacing(path) as temporary:
                safetensors.flax.save_file(tensors, temporary, metadata=metadata)
        except OSError as error:
            raise InputError(f"{path} can't be written: {error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: bundle.Bundle | str | os.PathLike[str]) -> Session:
        """A saved session, with the model that made it.

        Raises:
          InputError: the file can't be read, was made with another config (names the first field), or holds what no
            session can go on from.
        """
        model = model if isinstance(model, bundle.Bundle) else bundle.load(model)
        if not Path(path).is_file():
            raise InputError(f"{path} does not exist; expected a file written by Session.save")
        try:
            with safetensors.safe_open(path, framework="flax") as file:
                stored = from_config_dict(RelicConfig, json.loads(file.metadata()["config"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a file written by Session.save: {error}") from error
        difference = first_difference(stored, model.config)
        if difference is not None:
            field, was, is_now = difference
            raise InputError(
                f"{path} was made with {field}={was!r}, the model has {is_now!r}; expected the same config"
            )
        params = _serving(model)
        blank = _blank(model.config)
        _check_stored(tensors, blank, str(path))
        names, tree = _names(blank)
        leaves = [jax.random.wrap_key_data(tensors[n]) if n == _KEY else tensors[n] for n in names]
        return cls(
            model,
            params,
            jax.tree.unflatten(tree, leaves),
            np.asarray(tensors["latents"]),
            np.asarray(tensors["actions"]),
        )


def _check_stored(tensors: dict[str, Array], blank: _Live, path: str) -> None:
    """What a file holds is what a session has: every array in its shape, and what is said of the walk finite."""
    for name, leaf in _leaves(blank).items():
        if name not in tensors:
            raise InputError(f"{path} has no {name}: it was written by another version of relic-jax")
        if tensors[name].shape != leaf.shape:
            raise InputError(f"{path}: {name} has shape {tensors[name].shape}, expected {leaf.shape}")
    for name in ("latents", "actions"):
        if name not in tensors:
            raise InputError(f"{path} has no {name}: it was written by another version of relic-jax")
    for name in ("latents", "actions", "state/rotation", "state/position"):
        outside.array(tensors[name], f"{path}: {name}")


def _serving(model: bundle.Bundle) -> Params:
    """The weights as `play` uses them: matrices in the compute precision."""
    dtype = jnp.dtype(model.config.precision.compute)
    return {"dit": cast_kernels(model.params["dit"], dtype), "vae": model.params["vae"]}


@partial(jax.jit, static_argnums=1)
def _encode(params: Params, cfg: VAEConfig, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
    return vae.encode_video(params, cfg, image[:, None])[:, 0]


@partial(jax.jit, static_argnums=1, donate_argnums=2, compiler_options=vae.ONEDNN)
def _decode(
    params: Params, cfg: VAEConfig, cache: vae.VAECache, latents: Float[Array, "B L h w C"]
) -> tuple[vae.VAECache, UInt8[Array, "B T H W 3"]]:
    dtype = jax.tree.leaves(cache.history)[0].dtype
    cache, frames = vae.decode(params, cfg, cache, latents.astype(dtype))
    return cache, pixels.to_uint8(frames)


def _names(live: _Live) -> tuple[list[str], Any]:
    """The path of every leaf of a session, in the tree's order, and the tree."""
    paths, tree = jax.tree.flatten_with_path(live)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths], tree


def _leaves(live: _Live) -> dict[str, Array]:
    """Every array of a session by its path."""
    leaves = dict(zip(_names(live)[0], jax.tree.leaves(live), strict=True))
    return leaves | {_KEY: jax.random.key_data(leaves[_KEY])}


def _blank(cfg: RelicConfig) -> _Live:
    """A session of nothing, for the structure of its tree."""
    image = jnp.zeros((1, *cfg.latent_size, cfg.vae.latent_channels))
    words = jnp.zeros((1, cfg.text.length, cfg.text.dim))
    return _begin(cfg, image, words, 0)


def _begin(cfg: RelicConfig, latent: Float[Array, "B h w C"], words: Float[Array, "B M Dt"], seed: int) -> _Live:
    state = _start(cfg, latent, words, rng.from_seed(seed))
    return _Live(state, vae.init_decode_cache(cfg.vae, 1, *cfg.latent_size, jnp.dtype(cfg.precision.compute)))
