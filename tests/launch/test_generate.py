"""The program a newcomer runs: a whole video from a smallest model of random weights, and every bad input."""

import dataclasses
import json

import av
import numpy as np
import pytest
from PIL import Image

from tests.programs import start
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
    done = start("launch.generate", *flags(folder, out, sheet=sheet, json=measured))
    assert done.returncode == 0, done.stderr
    with av.open(str(out)) as container:
        shapes = [(f.height, f.width) for f in container.decode(video=0)]
    assert shapes == [(32, 48)] * 33  # the picture and a frame an action
    assert Image.open(sheet).size == (6 * (240 + 4) + 4, 4 * (160 + 4) + 4)
    values = json.loads(measured.read_text())
    assert set(values) == {"frames", "compile_s", "steady_fps", "peak_rss_bytes"}
    assert values["frames"] == 33 and min(values.values()) > 0
    assert f"note: {folder / 'picture.png'} is 60x40, resized to 48x32" in done.stdout
    assert str(out) in done.stdout and str(sheet) in done.stdout
    assert sorted(p.name for p in out.parent.iterdir()) == ["out.mp4", "out.png"]


BAD = {
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
