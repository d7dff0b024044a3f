"""Every way of measuring a model, whole, on a smallest one of random weights: its figures and its pictures."""

import dataclasses
import json

import av
import numpy as np
import pytest
from PIL import Image

from relic_jax.models import weights
from tests.programs import start
from tests.small import SMALLEST, random_params, write_bundle

WORLD = {
    "right_closer_fraction", "right_closer_fraction_no_pose", "psnr_db", "psnr_mirrored_db", "psnr_no_pose_db",
    "psnr_still_db", "psnr_gain_over_still_db", "vae_psnr_db", "clips", "scenes",
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """Runs the program on a bundle in a folder of its own and reads what it writes."""
    folder = tmp_path_factory.mktemp("evaluate")
    config = write_bundle(folder / "model", SMALLEST)
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def run(command, *arguments):
        out = folder / command
        done = start(
            "launch.evaluate", command, f"--config={config}", f"--checkpoint={folder / 'model'}", "--scenes=2",
            f"--out={out}", f"--json={out}.json", *arguments, **compiled,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        figures = json.loads((folder / f"{command}.json").read_text())
        assert all(type(value) in (int, float) and np.isfinite(value) for value in figures.values())
        return figures, out, done.stdout

    run.folder = folder
    return run


def frames_of_video(path):
    with av.open(str(path)) as container:
        return [(frame.height, frame.width) for frame in container.decode(video=0)]


def test_world(evaluate):
    figures, out, said = evaluate("world")
    assert set(figures) == WORLD
    assert figures["scenes"] == 2 and 1 <= figures["clips"] <= 2
    for name in WORLD:
        assert name in said
    columns = 5 * (2 if figures["clips"] == 2 else 1)
    assert Image.open(out / "world.png").size[0] >= columns * 48


def test_revisit(evaluate):
    model = evaluate.folder / "model"
    figures, out, said = evaluate("revisit", f"--models=relic={model},window={model}", "--ways=pan,both")
    views = ("returned", "midway", "far")
    expected = {f"{m}.{name}.{v}" for m in ("psnr_db", "ssim") for name in ("relic", "window") for v in views}
    # Repeating the picture is the truth itself where the camera stands again as at first: that PSNR is no number.
    expected |= {"clips", "psnr_db.still.midway", "psnr_db.still.far", *(f"ssim.still.{view}" for view in views)}
    assert set(figures) == expected
    assert figures["clips"] == 2 and figures["ssim.still.far"] < figures["ssim.still.returned"] < 1
    assert "2 scenes, ways: pan, both" in said and "the same" in said
    # The truth and two models from left to right, two scenes below each other; the way in whole blocks.
    assert frames_of_video(out / "revisit.mp4") == [(64, 144)] * 141
    Image.open(out / "revisit.png").verify()


def test_student(evaluate):
    path = evaluate.folder / "teacher.safetensors"
    config = {"stage": "teacher", "frames": 45, "model": {"dit": dataclasses.asdict(SMALLEST.dit)}}
    weights.save_safetensors(path, random_params(SMALLEST)["dit"], {"config": json.dumps(config)})
    figures, out, said = evaluate("student", f"--teacher={path}", "--teacher_steps=2")
    of_one = {*WORLD, "frechet", "frechet_vae", "seconds_per_second"}
    assert set(figures) == {f"{name}.{key}" for name in ("student", "teacher") for key in of_one}
    assert figures["student.frechet_vae"] == figures["teacher.frechet_vae"]
    assert min(figures["student.seconds_per_second"], figures["teacher.seconds_per_second"]) > 0
    assert "2 scenes of 2.8 s; the teacher in 2 steps" in said
    assert frames_of_video(out / "student.mp4") == [(64, 144)] * 45


def test_drift(evaluate):
    figures, out, said = evaluate("drift", "--seconds=10")
    measures, videos = ("brightness", "saturation", "sharpness"), ("truth", "made")
    expected = {f"{m}.{v}.{kind}_change" for m in measures for v in videos for kind in ("mean", "largest")}
    assert set(figures) == expected | {"sessions", "seconds"}
    assert (figures["sessions"], figures["seconds"]) == (2, 10)
    for name in measures:  # there is one other five seconds
        assert abs(figures[f"{name}.made.mean_change"]) == abs(figures[f"{name}.made.largest_change"])
    assert "2 sessions of 10 s" in said
    Image.open(out / "drift.png").verify()


def test_an_unknown_way_is_said_in_one_sentence(fork, tmp_path):
    done = fork("launch.evaluate", "revisit", "--config=configs/tiny.py", "--ways=pan,moonwalk", f"--out={tmp_path}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: --ways=moonwalk: expected some of pan, truck, both, pedestal, roll\n"
