"""The starts that come with the server: pictures of rendered rooms, and a sentence each."""

from __future__ import annotations

import json
from pathlib import Path

from relic_jax.errors import InputError
from relic_jax.serve import protocol

FOLDER = Path(__file__).parent / "scenes"


class Scenes:
    """Those of a folder: scenes.json, a list of name, title and prompt, and NAME.png beside it."""

    def __init__(self, folder: Path = FOLDER):
        self._folder = folder
        listed = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
        self.all = [protocol.Scene(**one, picture=f"/scenes/{one['name']}.png") for one in listed]

    def read(self, name: str) -> bytes:
        """The picture's file.

        Raises:
          InputError: there is no such scene.
        """
        if name not in {scene.name for scene in self.all}:
            raise InputError(f"there is no scene {name!r}")
        return (self._folder / f"{name}.png").read_bytes()
