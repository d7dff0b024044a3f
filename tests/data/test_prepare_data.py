import json
import pathlib

import numpy as np
import pytest

from relic_jax.data import loader
from tests.programs import start

SMALL = ("--clips=3", "--frames=5", "--height=16", "--width=24", "--seed=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("world") / "clips"
    done = start("launch.prepare_data", "world", f"--out={out}", f"--json={out}.json", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "3/3" in done.stderr, "a progress bar"
    return out


def test_world(data):
    result = json.loads(data.with_name("clips.json").read_text())
    assert result["clips"] == result["clips_made"] == 3 and result["frames"] == 15
    assert result["clips_per_min"] > 0 and result["size_bytes"] > 0
    clips = loader.Clips(data)
    assert [clips[i].seed for i in range(3)] == [2_000_000, 2_000_001, 2_000_002]
    assert clips[0].video.shape == (5, 16, 24, 3)


def test_a_whole_split_is_not_made_again(fork, data):
    files = {p.name: p.stat().st_mtime_ns for p in data.glob("*array_record*")}
    done = fork("launch.prepare_data", "world", f"--out={data}", *SMALL)
    assert done.returncode == 0 and "0 made" in done.stdout
    assert files == {p.name: p.stat().st_mtime_ns for p in data.glob("*array_record*")}


def test_another_world(fork, data, tmp_path):
    out = tmp_path / "house"
    done = fork("launch.prepare_data", "world", "--world=house", "--workers=1", f"--out={out}", *SMALL)
    assert done.returncode == 0, done.stderr
    assert not np.array_equal(loader.Clips(out)[0].video, loader.Clips(data)[0].video)
    done = fork("launch.prepare_data", "world", "--world=house", f"--out={data}", *SMALL)
    assert done.returncode == 2 and "already holds a split" in done.stderr


def test_tokenizer(fork, data, tmp_path):
    config = tmp_path / "config.py"
    config.write_text("from relic_jax.config import *\ndef get_config(): return to_config_dict(RelicConfig.tiny())")
    done = fork(
        "launch.prepare_data",
        "tokenizer",
        f"--data={data}",
        f"--out={tmp_path / 'tokenizer.json'}",
        f"--config={config}",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tokenizer.json").exists()
    assert "tokenizer.json: " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected one of world, tokenizer, latents after the program's name"),
        (("world", "--out=/tmp/x", "--frames=80"), "--frames=80: expected 4 L + 1 frames"),
        (("world", "--out=/proc/none/x", "--frames=5"), "can't be made"),
    ],
)
def test_bad_input(fork, arguments, message):
    done = fork("launch.prepare_data", *arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_other_clips_in_the_same_folder_are_refused(fork, data):
    done = fork("launch.prepare_data", "world", f"--out={data}", *SMALL[:-1], "--seed=3")
    assert done.returncode == 2
    assert "already holds a split 'train' with seed=2000000, this one has seed=3000000" in done.stderr
