"""Measures a model.

    python -m launch.evaluate world --config=configs/tiny.py [--checkpoint=DIR] [--scenes=32] [--out=DIR] [--json=FILE]
    python -m launch.evaluate revisit --config=configs/tiny.py [--models=relic=DIR,window=DIR,full=DIR] [--scenes=64]
        [--ways=pan,truck,both] [--out=DIR] [--json=FILE]
    python -m launch.evaluate student --config=configs/tiny.py --teacher=runs/tiny_teacher_20s [--scenes=32]
        [--teacher_steps=48] [--guidance=1] [--out=DIR] [--json=FILE]
    python -m launch.evaluate drift --config=configs/tiny.py [--seconds=60] [--scenes=64] [--out=DIR] [--json=FILE]

`world`: action following on held-out scenes against the renderer's truth (see `relic_jax.evaluate.world`). Prints a
table and writes world.png: for some scenes the truth, the video of the right actions, of the mirrored ones, and of the
right ones with the poses withheld. JSON keys: right_closer_fraction, right_closer_fraction_no_pose, psnr_db,
psnr_mirrored_db, psnr_no_pose_db, psnr_still_db, psnr_gain_over_still_db, vae_psnr_db, clips, scenes.

`revisit`: memory, by ways out and back (see `relic_jax.evaluate.revisit`). One model for each kind of memory (relic,
window, full, relic_kv), trained in it; without --models the model of --checkpoint runs in each, which says less.
Prints a table with 95 % confidence intervals and writes revisit.png (PSNR frame by frame) and revisit.mp4 (some scenes
side by side). JSON keys: clips, and `<measure>.<model>.<view>` of psnr_db and ssim, of each model and `still` (the
first frame repeated), of returned, midway and far, less the PSNR of `still` where it is the truth.

`student`: the student of --checkpoint beside the teacher of --teacher, on clips as long as the teacher's (see
`relic_jax.evaluate.student`). Prints a table and writes student.mp4: from left the truth, the student, the teacher.
JSON keys: `student.` and `teacher.` with those of `world`, frechet, frechet_vae and seconds_per_second.

`drift`: brightness, saturation and sharpness over long sessions, beside the truth of the same walks (see
`relic_jax.evaluate.drift`). Prints a table, how far each five seconds are from the first, and writes drift.png. JSON
keys: sessions, seconds, and `<measure>.<video>.mean_change` and `.largest_change` of brightness, saturation and
sharpness, of `truth` and `made`.
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
from relic_jax import files, video
from relic_jax.config import MEMORIES, RelicConfig
from relic_jax.errors import InputError
from relic_jax.evaluate import drift as drift_evaluation
from relic_jax.evaluate import generate
from relic_jax.evaluate import revisit as revisit_evaluation
from relic_jax.evaluate import student as student_evaluation
from relic_jax.evaluate import world as world_evaluation
from relic_jax.models import bundle
from relic_jax.pixels import psnr

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", str(Path(relic_jax.__file__).parent / "assets" / "tiny"), "folder of the model"
)
_SCENES = flags.DEFINE_integer(
    "scenes", None, "how many held-out scenes (world, student: 32, revisit, drift: 64)", lower_bound=1
)
_MODELS = flags.DEFINE_list("models", [], "revisit: MEMORY=FOLDER of each; relic, window, full, relic_kv")
_WAYS = flags.DEFINE_list("ways", list(revisit_evaluation.PLAIN), "revisit: kinds of ways, taken in turn")
_TEACHER = flags.DEFINE_string("teacher", None, "student: workdir of the teacher's run, or a safetensors file")
_TEACHER_STEPS = flags.DEFINE_integer("teacher_steps", 48, "student: the teacher's Euler steps", lower_bound=1)
_GUIDANCE = flags.DEFINE_float("guidance", 1.0, "student: the teacher's, on the text")
_SECONDS = flags.DEFINE_integer("seconds", 60, "drift: length of a session", lower_bound=10)
_SCENE_SEED = flags.DEFINE_integer("scene_seed", 900_000_000, "the first scene; training data has others", 0, 2**62)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the noise", 0, 2**64 - 1)
_OUT = flags.DEFINE_string("out", "out/evaluate", "folder for pictures")
_JSON = flags.DEFINE_string("json", None, "file for the figures")

_SHOWN = 6  # scenes in the picture
_FRAMES = (0, 8, 16, 24, 32)
_ROWS = {"truth": "truth", "right": "right", "mirrored": "mirrored", "right_no_pose": "no pose"}


def _begin() -> tuple[RelicConfig, Path]:
    """The model's configuration and the folder for pictures; what is to be written can be."""
    cfg = cli.load_config(RelicConfig)
    out = cli.writable_directory(_OUT.value)
    cli.check_outputs({"json": _JSON.value}, {"checkpoint": _CHECKPOINT.value})
    return cfg, out


def world(argv: Sequence[str]) -> None:
    """Action following."""
    del argv
    cfg, out = _begin()
    model = bundle.load(_CHECKPOINT.value, cfg)
    scenes = _world_scenes(cfg)
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


def _world_scenes(cfg: RelicConfig, *frames: int) -> world_evaluation.Scenes:
    count = _SCENES.value or 32
    rendered = world_evaluation.scenes(cfg, count, _SCENE_SEED.value, *frames)
    bar = tqdm.tqdm(rendered, total=count, desc="rendering", unit="scene")
    return world_evaluation.join([part for _, part in bar])


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
    cfg, out = _begin()
    cli.pyplot()
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
            if np.isfinite(values).all()
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
                known = np.isfinite(values).all()  # repeating the picture is the truth itself at the return
                cells.append(form.format(values.mean(), *revisit_evaluation.interval(values)) if known else "the same")
            lines.append(f"{name:10s}" + "".join(f"{cell:>24s}" for cell in cells))
    return lines[1:]


def _plot_frames(path: Path, truth: np.ndarray, made: dict[str, np.ndarray]) -> None:
    pyplot = cli.pyplot()
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    for name, one in made.items():
        axes.plot(np.asarray(psnr(one, truth)).mean(0)[1:], label=name, linewidth=1)
    for view, frames in revisit_evaluation.VIEWS.items():
        axes.axvspan(frames.start - 1, frames.stop - 1, color="grey", alpha=0.25, linewidth=0)
        axes.annotate(view, (frames.start, 1), xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
    axes.set(xlabel="frame (out, then back)", ylabel="PSNR to the truth, dB")
    axes.legend(fontsize=8)
    with files.replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    pyplot.close(figure)


def _write_side_by_side(path: Path, made: dict[str, np.ndarray]) -> None:
    rows = [
        np.concatenate([one[scene] for one in made.values()], axis=2) for scene in range(_SHOWN)[: len(made["truth"])]
    ]
    with video.video_writer(path, 16) as writer:
        writer.write(np.concatenate(rows, axis=1))


def student(argv: Sequence[str]) -> None:
    """Distillation."""
    del argv
    cfg, out = _begin()
    run = cli.needed(_TEACHER)
    model = bundle.load(_CHECKPOINT.value, cfg)
    teacher, frames = student_evaluation.teacher(run, model, _TEACHER_STEPS.value, _GUIDANCE.value)
    contestants = {"student": student_evaluation.Contestant(model, generate.latents), "teacher": teacher}
    scenes = _world_scenes(cfg, frames)
    bar = tqdm.tqdm(contestants.items(), unit="model")
    measured = {name: student_evaluation.measure(one, scenes, _SEED.value) for name, one in bar}
    figures = {f"{name}.{key}": value for name, (of, _) in measured.items() for key, value in of.items()}
    seconds = scenes.video.shape[1] / cfg.video.fps
    print(f"\n{len(scenes.captions)} scenes of {seconds:.1f} s; the teacher in {_TEACHER_STEPS.value} steps\n")
    print(f"{'':32s}" + "".join(f"{name:>12s}" for name in measured))
    for key in measured["student"][0]:
        print(f"  {key:30s}" + "".join(f"{of[key]:12.3f}" for of, _ in measured.values()))
    _write_side_by_side(
        out / "student.mp4", {"truth": scenes.video} | {n: made["right"] for n, (_, made) in measured.items()}
    )
    print(f"\nvideo: {out / 'student.mp4'} (from left: truth, student, teacher)")
    if _JSON.value:
        cli.write_json(_JSON.value, figures)


def drift(argv: Sequence[str]) -> None:
    """Long sessions."""
    del argv
    cfg, out = _begin()
    cli.pyplot()
    model = bundle.load(_CHECKPOINT.value, cfg)
    videos: dict[str, list[np.ndarray]] = {"truth": [], "made": []}
    count = _SCENES.value or 64
    for i in tqdm.trange(count, desc="walking", unit="scene"):
        clip = drift_evaluation.walk(cfg, _SCENE_SEED.value + i, _SECONDS.value)
        videos["truth"].append(clip.video)
        videos["made"].append(drift_evaluation.stream(model, clip, _SEED.value))
    curves = {name: drift_evaluation.curves(of, cfg.video.fps) for name, of in videos.items()}
    changes = {
        name: {measure: drift_evaluation.change(curve) for measure, curve in of.items()} for name, of in curves.items()
    }
    print(f"\n{count} sessions of {_SECONDS.value} s; change of each 5 s against the first 5 s, in %\n")
    for measure in drift_evaluation.MEASURES:
        for name, of in changes.items():
            print(f"{measure:12s}{name:8s}" + "".join(f"{100 * value:7.1f}" for value in of[measure][1:]))
    _plot_drift(out / "drift.png", curves)
    print(f"\npicture: {out / 'drift.png'}")
    if _JSON.value:
        figures = {}
        for name, of in changes.items():
            for measure, values in of.items():
                figures[f"{measure}.{name}.mean_change"] = float(values[1:].mean())
                figures[f"{measure}.{name}.largest_change"] = float(values[np.abs(values).argmax()])
        cli.write_json(_JSON.value, {**figures, "sessions": count, "seconds": _SECONDS.value})


def _plot_drift(path: Path, curves: dict[str, dict[str, np.ndarray]]) -> None:
    pyplot = cli.pyplot()
    figure, axes = pyplot.subplots(1, len(drift_evaluation.MEASURES), figsize=(10, 2.8), layout="constrained")
    for panel, measure in zip(axes, drift_evaluation.MEASURES, strict=True):
        for name, of in curves.items():
            panel.plot(of[measure], label=name, linewidth=1)
        first = curves["made"][measure][:5].mean()
        panel.axhspan(0.9 * first, 1.1 * first, color="grey", alpha=0.2, linewidth=0)
        panel.set(title=measure, xlabel="second", ylim=(0, None))
    axes[0].legend(fontsize=8)
    with files.replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    pyplot.close(figure)


COMMANDS = {"world": world, "revisit": revisit, "student": student, "drift": drift}

if __name__ == "__main__":
    cli.run_commands(COMMANDS, configured=dict.fromkeys(COMMANDS, "configs/tiny.py"))
