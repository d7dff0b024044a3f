"""The program a newcomer runs: a whole video from a smallest model of random weights, and every bad input."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import time

import av
import numpy as np
import pytest
from PIL import Image

from relic_jax import files
from tests.programs import begin, start
from tests.small import SMALLEST, write_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, its config file and a picture."""
    folder = tmp_path_factory.mktemp("generate")
    write_bundle(folder / "model", SMALLEST)
    write_bundle(folder / "wider", dataclasses.replace(SMALLEST, dit=dataclasses.replace(SMALLEST.dit, ffn_dim=64)))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def flags(folder, out, **changed):
    values = {
        "config": folder / "model.py", "checkpoint": folder / "model", "image": folder / "picture.png",
        "prompt": "a room with red walls", "actions": "w-8,wl-20,none-4", "out": out, **changed,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in values.items()]


def test_a_whole_video(folder, tmp_path):
    out, sheet, measured = tmp_path / "new" / "out.mp4", tmp_path / "new" / "out.png", tmp_path / "m.json"
    prompt = "a room with red walls and a grey floor, two blue boxes in it"
    asked = flags(folder, out, sheet=sheet, json=measured, prompt=prompt)
    done = start("launch.generate", *asked, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0 and "bad_alloc" not in done.stderr, done.stderr
    with av.open(str(out)) as container:
        shapes = [(f.height, f.width) for f in container.decode(video=0)]
    assert shapes == [(32, 48)] * 33  # the picture and a frame an action
    assert Image.open(sheet).size == (6 * (240 + 4) + 4, 4 * (160 + 4) + 4)
    values = json.loads(measured.read_text())
    assert set(values) == {"frames", "compile_s", "steady_fps", "peak_rss_bytes"}
    assert values["frames"] == 33 and min(values.values()) > 0
    assert f"note: {folder / 'picture.png'} is 60x40, resized to 48x32" in done.stdout
    assert re.search(r"note: the prompt has \d+ tokens, the text encoder takes 8: its end is cut off", done.stdout)
    assert "note: blocks have 16 frames: 12 more are made after the script's, standing still" in done.stdout
    assert str(out) in done.stdout and str(sheet) in done.stdout
    assert sorted(p.name for p in out.parent.iterdir()) == ["out.mp4", "out.png"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_video_with_the_frames_there_are(folder, tmp_path, number, code):
    out, sheet, measured = tmp_path / "out.mp4", tmp_path / "out.png", tmp_path / "m.json"
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine = files.temporary(out)
    left = mine.with_name(mine.name.replace(f".{os.getpid()}.", f".{dead.pid}."))
    left.write_bytes(b"what a killed process left")
    asked = flags(folder, out, sheet=sheet, json=measured, actions="w-20000")
    process = begin("launch.generate", *asked)
    deadline = time.monotonic() + 300
    while not [p for p in tmp_path.glob(".out.mp4.*") if p != left] and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == code, stderr
    frames = json.loads(measured.read_text())["frames"]
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames < 20001 and frames % 16 == 13
    assert f"stopped by {number.name}: {out} has the first {frames} of 20001 frames" in stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.json", "out.mp4", "out.png"]


def test_a_finished_video_is_never_lost_to_a_twin_of_its_name(fork, folder, tmp_path):
    """Inputs and outputs of a command all differ, however they are spelt."""
    picture = tmp_path / "picture.png"
    shutil.copy(folder / "picture.png", picture)
    (tmp_path / "soft.png").symlink_to(picture)
    os.link(picture, tmp_path / "hard.png")
    before, listed = picture.read_bytes(), sorted(tmp_path.iterdir())
    out = tmp_path / "out.mp4"
    for changed, said in (
        ({"sheet": picture}, "is the file of --image too"),
        ({"sheet": tmp_path / "x" / ".." / "picture.png"}, "is the file of --image too"),
        ({"sheet": tmp_path / "soft.png"}, "is the file of --image too"),
        ({"sheet": tmp_path / "hard.png"}, "is the file of --image too"),
        ({"json": out}, "is the file of --json too"),
        ({"json": folder / "model" / "config.json"}, "is the file of --checkpoint too"),
        ({"json": folder / "model.py"}, "is the file of --config too"),
        ({"out": picture}, "expected a name that ends in .mp4"),
        ({"out": tmp_path / "walk.gif"}, "expected a name that ends in .mp4"),
        ({"out": tmp_path / ("n" * 246 + ".mp4")}, "its name has 250 bytes; expected at most 200"),
        ({"json": "/dev/null"}, "is a device or a pipe"),
    ):
        (tmp_path / "x").mkdir(exist_ok=True)
        done = fork("launch.generate", *flags(folder, changed.pop("out", out), image=picture, **changed))
        (tmp_path / "x").rmdir()
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert picture.read_bytes() == before and sorted(tmp_path.iterdir()) == listed


BAD = {
    "a seed beyond 64 bits": ({"seed": "18446744073709551616"}, "--seed: expected a whole number from 0 to 2^64 - 1"),
    "a negative seed": ({"seed": "-1"}, "--seed: expected a whole number from 0 to 2^64 - 1"),
    "a speed that is no number": ({"speed": "nan"}, "speed (gamma): expected a finite number above 0"),
    "a missing picture": ({"image": "{folder}/nowhere.png"}, "nowhere.png': expected an image file, there is none"),
    "an unreadable picture": ({"image": "{folder}/broken.png"}, "broken.png': expected an image file that can be read"),
    "an unknown key": ({"actions": "w-8,x-8"}, "unknown key 'x'; valid keys are W, S, A, D, E, Q, I, K, J, L, O, U"),
    "an empty prompt": ({"prompt": " "}, "prompt is empty"),
    "a folder that can't be written to": ({"out": "{folder}/model.py/out.mp4"}, "model.py"),
    "a config field that doesn't exist": ({"config.memory.mood": "window"}, "mood"),
    "no checkpoint": ({"checkpoint": "{folder}"}, "config.json does not exist"),
    "a checkpoint that doesn't fit": ({"checkpoint": "{folder}/wider"}, "shape (1, 64), expected shape (1, 48)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_code_2(fork, folder, tmp_path, case):
    changed, said = BAD[case]
    out = tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    changed = {name: value.format(folder=folder) for name, value in changed.items()}
    done = fork("launch.generate", *flags(folder, changed.pop("out", out), **changed))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert done.stdout == ""
    assert out.read_bytes() == b"precious" and [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
