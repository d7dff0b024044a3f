"""Measures a model.

    python -m launch.evaluate world --config=configs/tiny.py [--checkpoint=DIR] [--scenes=32] [--out=DIR] [--json=FILE]

`world`: action following on held-out scenes against the renderer's truth (see `relic_jax.evaluate.world`). Prints a
table and writes world.png: for some scenes the truth, the video of the right actions, of the mirrored ones, and of the
right ones with the poses withheld.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import flags

import relic_jax
from launch import cli
from relic_jax import video
from relic_jax.config import RelicConfig
from relic_jax.evaluate import world as world_evaluation
from relic_jax.models import bundle

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", str(Path(relic_jax.__file__).parent / "assets" / "tiny"), "folder of the model"
)
_SCENES = flags.DEFINE_integer("scenes", 32, "how many held-out scenes", lower_bound=1)
_SCENE_SEED = flags.DEFINE_integer("scene_seed", 900_000_000, "the first scene; training data has others")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the noise")
_OUT = flags.DEFINE_string("out", "out/evaluate", "folder for pictures")
_JSON = flags.DEFINE_string("json", None, "file for the figures")

_SHOWN = 6  # scenes in the picture
_FRAMES = (0, 8, 16, 24, 32)
_ROWS = {"truth": "truth", "right": "right", "mirrored": "mirrored", "right_no_pose": "no pose"}


def world(argv: Sequence[str]) -> None:
    """Action following."""
    del argv
    cfg = cli.load_config(RelicConfig)
    out = cli.writable_directory(_OUT.value)
    if _JSON.value:
        cli.check_writable(_JSON.value)
    model = bundle.load(_CHECKPOINT.value, cfg)
    rendered = world_evaluation.scenes(cfg, _SCENES.value, _SCENE_SEED.value)
    parts = [part for _, part in tqdm.tqdm(rendered, total=_SCENES.value, desc="rendering", unit="scene")]
    scenes = world_evaluation.join(parts)
    made = world_evaluation.videos(model, scenes, _SEED.value)
    by_scene = world_evaluation.scores(scenes.video, made)
    if not world_evaluation.moving(by_scene).any():
        print("error: none of the scenes really moves; ask for more --scenes", file=sys.stderr)
        sys.exit(1)
    _print_table(by_scene)
    figures = world_evaluation.summary(by_scene)
    print("\n" + "\n".join(f"  {name:32s} {value:.3f}" for name, value in figures.items()))
    _write_picture(out / "world.png", {"truth": scenes.video, **made}, world_evaluation.moving(by_scene))
    rows = ", ".join(_ROWS.values())
    print(f"\npicture: {out / 'world.png'} (a row's {len(_FRAMES)} pictures are moments of one video; rows: {rows})")
    if _JSON.value:
        cli.write_json(_JSON.value, figures)


def _print_table(by_scene: dict[str, np.ndarray]) -> None:
    columns = ("still", "right", "mirrored", "right_no_pose", "mirrored_no_pose", "vae")
    print("\nPSNR in dB over frames 1-32; * clips that really move\n\nscene " + "".join(f"{c:>18s}" for c in columns))
    for i, moves in enumerate(world_evaluation.moving(by_scene)):
        print(f"{i:4d}{'*' if moves else ' '} " + "".join(f"{by_scene[c + '_db'][i]:18.2f}" for c in columns))


def _write_picture(path: Path, made: dict[str, np.ndarray], moves: np.ndarray) -> None:
    """Two scenes side by side, a row each variant."""
    shown = np.flatnonzero(moves)[:_SHOWN]
    images = []
    for pair in shown.reshape(-1, 2) if len(shown) % 2 == 0 else shown[:, None]:
        for name in _ROWS:
            images += [made[name][scene][t] for scene in pair for t in _FRAMES]
    columns = len(_FRAMES) * (2 if len(shown) % 2 == 0 else 1)
    video.write_image(path, video.image_grid(images, columns, scale=1))


COMMANDS = {"world": world}

if __name__ == "__main__":
    cli.run_commands(COMMANDS, configured={"world": "configs/tiny.py"})
