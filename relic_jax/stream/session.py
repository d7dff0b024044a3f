"""The stateful shell around `rollout` that people hold: open a picture, play keys, keep, go back, branch.

session = Session.open("relic_jax/assets/tiny", "picture.png", "A room with a red floor.")
for frames in session.play("w-32,wl-48"):   # uint8 [n, H, W, 3], as blocks are made
    ...
session.save("walk.safetensors")
other = session.branch(seed=1)
earlier = session.branch(blocks=2)
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax
from jaxtyping import Array, Float, UInt8

from relic_jax import files, outside, picture, rng
from relic_jax.camera import actions as camera_actions
from relic_jax.camera import keys
from relic_jax.config import RelicConfig, VAEConfig, first_difference, from_config_dict
from relic_jax.errors import InputError
from relic_jax.memory.contents import Held, contents
from relic_jax.models import bundle, text, vae
from relic_jax.models.module import Params
from relic_jax.stream import live as lives
from relic_jax.stream import probe, rollout
from relic_jax.stream.live import Live
from relic_jax.stream.log import Branch, Describe, Log, Play


class Session:
    """One walk. Make it with `open` or `load`.

    Attributes:
      config: the model's, as it runs here.
      latents: float32 [L, h, w, C], all made so far, normalised; the first is the picture's.
      actions: float32 [4 L, 13], what conditioned them, a row a frame; the picture's four are static.
      log: how it began and what was done since; `relic_jax.stream.again` makes the same frames from it.
    """

    def __init__(
        self, model: bundle.Bundle, params: Params, live: Live, latents: np.ndarray, actions: np.ndarray, log: Log
    ):
        self.config = model.config
        self.latents = latents
        self.actions = actions
        self.log = log
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
        # Encoding runs in float32 whatever the compute precision: a bf16 latent 0 makes the whole walk drift.
        latent = _encode(model.params["vae"], cfg.vae, jnp.asarray(image)[None])[0]
        return cls.begin(model, Log(np.asarray(latent), sentence, outside.seed(seed)))

    @classmethod
    def begin(cls, model: bundle.Bundle, log: Log) -> Session:
        """A session that stands where that of the log began; nothing of what came then is done.

        Raises:
          InputError: the log's picture is of another model.
        """
        cfg, shape = model.config, (*model.config.latent_size, model.config.vae.latent_channels)
        if log.picture.shape != shape:
            raise InputError(f"the log's picture has shape {log.picture.shape}, the model's have {shape}")
        words = text.embed(model.params["text"], cfg.text, model.tokenizer, [log.prompt])
        live = lives.begin(cfg, jnp.asarray(log.picture)[None], words, log.seed)
        begun = Log(log.picture, log.prompt, log.seed)
        nothing = np.zeros((0, *shape), np.float32), np.zeros((0, 13), np.float32)
        return cls(model, model.serving, live, *nothing, begun)

    @property
    def frames(self) -> int:
        """Frames shown so far, the picture included."""
        return max(len(self.actions) - rollout.FRAMES_PER_LATENT + 1, 0)

    @property
    def blocks(self) -> int:
        """Blocks made so far."""
        return len(self.latents) // self.config.stream.block

    @property
    def pose(self) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
        """World-to-camera rotation and camera centre of the last frame; the picture is the origin."""
        return np.asarray(self._live.state.rotation[0]), np.asarray(self._live.state.position[0])

    @property
    def poses(self) -> tuple[Float[np.ndarray, "N 3 3"], Float[np.ndarray, "N 3"]]:
        """World-to-camera rotation and camera centre after each of `actions`."""
        units = self.config.stream.translation_unit, self.config.stream.rotation_unit
        rotations, positions = camera_actions.poses_from_actions(self.actions, *units)
        return np.asarray(rotations), np.asarray(positions)

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
            yield self.together([self], [block])[0]

    @staticmethod
    def together(
        sessions: Sequence[Session], actions: Sequence[Float[np.ndarray, "T 13"]]
    ) -> list[UInt8[np.ndarray, "N H W 3"]]:
        """The next block of each of several sessions of one model, made in one step; they needn't be of one age.

        Args:
          actions: whole blocks, of `stream.block` latents of 4 frames; a session's first four belong to its picture.

        Raises:
          ValueError: the sessions are not of one model.
        """
        one = sessions[0]
        if any(session._params is not one._params for session in sessions):
            raise ValueError("sessions of one step have one model")
        made = lives.advance(one._params, one.config, [session._live for session in sessions], list(actions))
        shown = []
        for row, (session, moved, (live, latents, frames)) in enumerate(zip(sessions, actions, made, strict=True)):
            first = len(session.actions) == 0
            session._live = live
            session.latents = np.concatenate([session.latents, np.asarray(latents[0])])
            session.actions = np.concatenate([session.actions, moved])
            session.log = session.log.then(Play(moved, len(sessions), row))
            shown.append(np.asarray(frames[0])[rollout.FRAMES_PER_LATENT - 1 if first else 0 :])
        return shown

    def describe(self, prompt: str) -> None:
        """Another prompt from the next block on; what has been shown, and memory of it, stays.

        Raises:
          InputError: the prompt is empty.
        """
        sentence = text.clean(prompt)
        state = dataclasses.replace(self._live.state, text=self._words(sentence))
        self._live = dataclasses.replace(self._live, state=state)
        self.log = self.log.then(Describe(sentence))

    @property
    def memory(self) -> list[Held]:
        """The latents that the next block will see, oldest first, and how each is pooled."""
        return contents(self.config, self.blocks)

    def attended(self) -> Float[np.ndarray, " N"]:
        """Which of `memory` the newest view attends to: a mass each, in sum 1 (`probe`). Costs an evaluation.

        Raises:
          InputError: nothing has been shown yet.
        """
        if not self.blocks:
            raise InputError("a session that has shown nothing attends to nothing")
        return probe.latent_mass(self._params["dit"], self.config, self._live.state)

    def branch(self, seed: int | None = None, blocks: int | None = None) -> Session:
        """A second session that goes on from here, or from an earlier block, on its own.

        Args:
          seed: other noise from there on; by default its own.
          blocks: how many blocks of the past it keeps; by default all, and its state is a copy. From fewer, memory is
            made again from the latents (`live.rebuilt`): equal up to rounding, in two evaluations a block. The prompt
            is the one of that time.

        Raises:
          InputError: there are not so many blocks, or the seed is none.
        """
        log = self.log.then(Branch(blocks, None if seed is None else outside.seed(seed)))
        latents, actions = self.latents, self.actions
        if blocks is None:
            live = jax.tree.map(jnp.copy, self._live)  # `play` donates the state, so the two must not share it
        else:
            live, latents, actions = self._earlier(blocks, log.prompts())
        key = self._live.state.key if seed is None else rng.from_seed(seed)
        live = dataclasses.replace(live, state=dataclasses.replace(live.state, key=jnp.copy(key)))
        return Session(self._model, self._params, live, latents, actions, log)

    def _earlier(self, blocks: int, prompts: list[str]) -> tuple[Live, np.ndarray, np.ndarray]:
        if not 0 <= blocks <= self.blocks:
            raise InputError(f"a branch of {blocks} blocks: the session has {self.blocks}")
        cfg, block = self.config, self.config.stream.block
        latents, actions = self.latents[: blocks * block], self.actions[: blocks * block * rollout.FRAMES_PER_LATENT]
        words = {prompt: self._words(prompt) for prompt in dict.fromkeys(prompts)}
        begun = lives.begin(cfg, jnp.asarray(self.log.picture)[None], words[prompts[0]], 0)
        live = lives.rebuilt(self._params, cfg, begun, latents, actions, [words[p] for p in prompts[:-1]])
        state = dataclasses.replace(live.state, text=jnp.copy(words[prompts[-1]]))
        return dataclasses.replace(live, state=state), latents, actions

    def _words(self, sentence: str) -> Float[Array, "1 M Dt"]:
        return text.embed(self._model.params["text"], self.config.text, self._model.tokenizer, [sentence])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything but the model, memory included: the loaded session goes on bit for bit.

        Raises:
          InputError: the file can't be written.
        """
        made = {"latents": jnp.asarray(self.latents), "actions": jnp.asarray(self.actions)}
        metadata = {"config": json.dumps(dataclasses.asdict(self.config)), "log": json.dumps(self.log.to_dict())}
        try:
            with files.replacing(path) as temporary:
                safetensors.flax.save_file(lives.to_tensors(self._live) | made, temporary, metadata=metadata)
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
                metadata = file.metadata() or {}
                stored = from_config_dict(RelicConfig, json.loads(metadata["config"]))
                log = json.loads(metadata.get("log", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is not a file written by Session.save: {error}") from error
        difference = first_difference(stored, model.config)
        if difference is not None:
            field, was, is_now = difference
            raise InputError(
                f"{path} was made with {field}={was!r}, the model has {is_now!r}; expected the same config"
            )
        _check_stored(tensors, model.config, str(path))
        if log is None:
            raise InputError(f"{path} has no log: it was written by another version of relic-jax")
        log = Log.from_dict(log, str(path))
        live = lives.from_tensors(model.config, tensors)
        session = cls(model, model.serving, live, np.asarray(tensors["latents"]), np.asarray(tensors["actions"]), log)
        if not len(log.prompts()) - 1 == session.blocks == int(live.state.block):
            raise InputError(f"{path}: its log, latents and state are not of equally many blocks")
        return session


def _check_stored(tensors: dict[str, Array], cfg: RelicConfig, path: str) -> None:
    """What a file holds is what a session has: every array in its shape, and what is said of the walk finite."""
    length = len(tensors["latents"]) if "latents" in tensors and tensors["latents"].ndim else 0
    shapes = {name: leaf.shape for name, leaf in lives.to_tensors(lives.blank(cfg)).items()}
    shapes["latents"] = (length, *cfg.latent_size, cfg.vae.latent_channels)
    shapes["actions"] = (length * rollout.FRAMES_PER_LATENT, 13)
    for name, shape in shapes.items():
        if name not in tensors:
            raise InputError(f"{path} has no {name}: it was written by another version of relic-jax")
        if tensors[name].shape != shape:
            raise InputError(f"{path}: {name} has shape {tensors[name].shape}, expected {shape}")
    for name in ("latents", "actions", "state/rotation", "state/position"):
        outside.array(tensors[name], f"{path}: {name}")


@partial(jax.jit, static_argnums=1)
def _encode(params: Params, cfg: VAEConfig, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
    return vae.encode_video(params, cfg, image[:, None])[:, 0]
