"""Measures a model.

    python -m launch.evaluate world --config=configs/tiny.py [--checkpoint=DIR] [--scenes=32] [--out=DIR] [--json=FILE]
    python -m launch.evaluate revisit --config=configs/tiny.py [--models=relic=DIR,window=DIR,full=DIR] [--scenes=64]
        [--ways=pan,truck,both] [--out=DIR] [--json=FILE]

`world`: action following on held-out scenes against the renderer's truth (see `relic_jax.evaluate.world`). Prints a
table and writes world.png: for some scenes the truth, the video of the right actions, of the mirrored ones, and of the
right ones with the poses withheld.

`revisit`: memory, by ways out and back (see `relic_jax.evaluate.revisit`). One model for each kind of memory (relic,
window, full, relic_kv), trained in it; without --models the model of --checkpoint runs in each, which says less.
Prints a table with 95 % confidence intervals and writes revisit.png (PSNR frame by frame) and revisit.mp4 (some scenes
side by side).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import flags

import relic_jax
from launch import cli
from relic_jax import video
from relic_jax.config import MEMORIES, RelicConfig
from relic_jax.errors import InputError
from relic_jax.evaluate import revisit as revisit_evaluation
from relic_jax.evaluate import world as world_evaluation
from relic_jax.evaluate.quality import psnr
from relic_jax.models import bundle

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", str(Path(relic_jax.__file__).parent / "assets" / "tiny"), "folder of the model"
)
_SCENES = flags.DEFINE_integer("scenes", None, "how many held-out scenes (world: 32, revisit: 64)", lower_bound=1)
_MODELS = flags.DEFINE_list("models", [], "revisit: MEMORY=FOLDER of each; relic, window, full, relic_kv")
_WAYS = flags.DEFINE_list("ways", list(revisit_evaluation.PLAIN), "revisit: kinds of ways, taken in turn")
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
    count = _SCENES.value or 32
    rendered = world_evaluation.scenes(cfg, count, _SCENE_SEED.value)
    parts = [part for _, part in tqdm.tqdm(rendered, total=count, desc="rendering", unit="scene")]
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


def revisit(argv: Sequence[str]) -> None:
    """Memory."""
    del argv
    cfg = cli.load_config(RelicConfig)
    out = cli.writable_directory(_OUT.value)
    if _JSON.value:
        cli.check_writable(_JSON.value)
    unknown = [way for way in _WAYS.value if way not in revisit_evaluation.WAYS]
    if unknown or not _WAYS.value:
        raise InputError(f"--ways={','.join(unknown)}: expected some of {', '.join(revisit_evaluation.WAYS)}")
    models = _models(cfg)
    count = _SCENES.value or 64
    rendered = revisit_evaluation.scenes(cfg, count, _SCENE_SEED.value, tuple(_WAYS.value))
    scenes = revisit_evaluation.join(list(tqdm.tqdm(rendered, total=count, desc="rendering", unit="scene")))
    bar = tqdm.tqdm(models.items(), unit="model")
    made = {name: revisit_evaluation.videos(model, scenes, _SEED.value) for name, model in bar}
    still = {"still": np.broadcast_to(scenes.video[:, :1], scenes.video.shape)}
    by_scene = {name: revisit_evaluation.scores(scenes.video, one) for name, one in (made | still).items()}
    print(f"\n{count} scenes, ways: {', '.join(_WAYS.value)}; 95 % confidence intervals over scenes\n")
    print("\n".join(_table(by_scene)))
    _plot_frames(out / "revisit.png", scenes.video, made)
    _write_side_by_side(out / "revisit.mp4", {"truth": scenes.video, **made})
    print(f"\npictures: {out / 'revisit.png'}, {out / 'revisit.mp4'} (from left: truth, {', '.join(made)})")
    if _JSON.value:
        figures = {
            f"{measure}.{name}.{view}": float(values.mean())
            for name, of in by_scene.items()
            for key, values in of.items()
            for measure, view in [key.split(".")]
        }
        cli.write_json(_JSON.value, {**figures, "clips": count})


def _models(cfg: RelicConfig) -> dict[str, bundle.Bundle]:
    """The model of each kind of memory."""
    given = dict(item.partition("=")[::2] for item in _MODELS.value)
    wrong = [name for name in given if name not in MEMORIES]
    if wrong:
        raise InputError(f"--models: {wrong[0]!r} is no kind of memory; expected {', '.join(MEMORIES)}")
    folders = given or dict.fromkeys(("relic", "window", "full"), _CHECKPOINT.value)
    return {
        name: bundle.load(folder, dataclasses.replace(cfg, memory=dataclasses.replace(cfg.memory, **MEMORIES[name])))
        for name, folder in folders.items()
    }


def _table(by_scene: dict[str, dict[str, np.ndarray]]) -> list[str]:
    lines = []
    for measure, form in (("psnr_db", "{:6.2f} [{:5.2f}, {:5.2f}]"), ("ssim", "{:6.3f} [{:5.3f}, {:5.3f}]")):
        lines += ["", f"{measure:10s}" + "".join(f"{view:>24s}" for view in revisit_evaluation.VIEWS)]
        for name, of in by_scene.items():
            cells = []
            for view in revisit_evaluation.VIEWS:
                values = of[f"{measure}.{view}"]
                cells.append(form.format(values.mean(), *revisit_evaluation.interval(values)))
            lines.append(f"{name:10s}" + "".join(f"{cell:>24s}" for cell in cells))
    return lines[1:]


def _plot_frames(path: Path, truth: np.ndarray, made: dict[str, np.ndarray]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    for name, one in made.items():
        axes.plot(np.asarray(psnr(one, truth)).mean(0)[1:], label=name, linewidth=1)
    for view, frames in revisit_evaluation.VIEWS.items():
        axes.axvspan(frames.start - 1, frames.stop - 1, color="grey", alpha=0.25, linewidth=0)
        axes.annotate(view, (frames.start, 1), xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
    axes.set(xlabel="frame (out, then back)", ylabel="PSNR to the truth, dB")
    axes.legend(fontsize=8)
    with video.replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    pyplot.close(figure)


def _write_side_by_side(path: Path, made: dict[str, np.ndarray]) -> None:
    rows = [
        np.concatenate([one[scene] for one in made.values()], axis=2) for scene in range(_SHOWN)[: len(made["truth"])]
    ]
    with video.video_writer(path, 16) as writer:
        writer.write(np.concatenate(rows, axis=1))


COMMANDS = {"world": world, "revisit": revisit}

if __name__ == "__main__":
    cli.run_commands(COMMANDS, configured=dict.fromkeys(COMMANDS, "configs/tiny.py"))
