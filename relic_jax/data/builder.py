"""Clips of procedural worlds as a data set: the TFDS builder, and the same shards made by several processes."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from relic_jax.camera.actions import ACTIONS
from relic_jax.data import walks, worlds
from relic_jax.data.clip import Clip, from_poses
from relic_jax.data.shards import Split

DESCRIPTION = "Clips of procedural worlds with exact camera poses, actions and captions."


def features(height: int, width: int) -> tfds.features.FeaturesDict:
    """The TFDS features of a clip; see `data.clip`."""
    tensor, scalar, text = tfds.features.Tensor, tfds.features.Scalar, tfds.features.Text
    return tfds.features.FeaturesDict(
        {
            "video": tensor(shape=(None, height, width, 3), dtype=np.uint8, encoding="bytes"),
            "rotations": tensor(shape=(None, 3, 3), dtype=np.float32),
            "positions": tensor(shape=(None, 3), dtype=np.float32),
            "actions": tensor(shape=(None, len(ACTIONS)), dtype=np.float32),
            "unit": scalar(np.float32),
            "caption": text(),
            "seed": scalar(np.int64),
            "start_rotation": tensor(shape=(3, 3), dtype=np.float32),
            "start_position": tensor(shape=(3,), dtype=np.float32),
            "convention": text(),
            "fps": scalar(np.float32),
        }
    )


def world_clip(seed: int, frames: int, height: int, width: int, lead: int = 0, world: str = worlds.DEFAULT) -> Clip:
    """The clip of a seed: its scene, its path, its frames and its caption. A pure function of the arguments.

    Paths begin where there is much to see; with a `lead` the clip begins so many frames later, anywhere.
    """
    of = worlds.WORLDS[world]
    scene = of.build(seed)
    path = walks.sample_path(scene, lead + frames, np.random.default_rng([seed, 1]))
    rotations, positions = path.rotations[lead:], path.positions[lead:]
    video = of.render(scene, rotations, positions, height=height, width=width)
    caption = of.caption(scene, seed, rotations[0], positions[0])
    return from_poses(video, rotations, positions, caption=caption, seed=seed)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What makes the clips of a split (`workers.Job`); kept beside them."""

    frames: int
    height: int
    width: int
    seed: int  # the first scene's; the others follow
    lead: int = 0  # frames of the path before the clip
    world: str = worlds.DEFAULT  # of `worlds.WORLDS`

    @property
    def made_from(self) -> dict[str, Any]:
        usual = {"lead": 0, "world": worlds.DEFAULT}  # not said, so that splits made before there was a choice go on
        return {name: x for name, x in dataclasses.asdict(self).items() if name not in usual or x != usual[name]}

    @property
    def features(self) -> tfds.features.FeaturesDict:
        return features(self.height, self.width)

    @property
    def description(self) -> str:
        return DESCRIPTION

    def clip(self, number: int) -> Clip:
        return world_clip(self.seed + number, self.frames, self.height, self.width, self.lead, self.world)

    def write(self, split: Split, shard: int, done: Callable[[], None]) -> None:
        """Renders and writes one shard; calls `done` after each clip."""

        def records() -> Iterator[dict[str, Any]]:
            for number in split.shards[shard]:
                yield self.clip(number).record()
                done()

        split.write(shard, self.features, records())


@dataclasses.dataclass
class WorldConfig(tfds.core.BuilderConfig):
    """How many clips of which kind."""

    clips: int = 1200
    recipe: Recipe = Recipe(frames=81, height=64, width=96, seed=0)


class RelicWorld(tfds.core.GeneratorBasedBuilder):
    """The data set for who works with TFDS: one process, the same records as `launch.prepare_data world`.

    RelicWorld(data_dir=..., file_format="array_record").download_and_prepare(), then `as_data_source("train")`.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Set, because TFDS would look for them with importlib_resources, which it does not install.
    code_path = epath.Path(__file__)
    pkg_dir_path = code_path.parent
    BUILDER_CONFIGS = [WorldConfig(name="tiny", description="64x96, 5 s.")]

    def _info(self) -> tfds.core.DatasetInfo:
        recipe = self.builder_config.recipe
        return tfds.core.DatasetInfo(
            builder=self, description=DESCRIPTION, features=features(recipe.height, recipe.width)
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        del dl_manager  # nothing is downloaded
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(self.builder_config.clips):
            yield number, self.builder_config.recipe.clip(number).record()
