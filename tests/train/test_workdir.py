"""A run's folder: one run at a time, on the same data, and what is damaged is said with what is whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from relic_jax.config import ConfigError
from relic_jax.data import shards
from relic_jax.errors import InputError
from relic_jax.train import checkpoint, loop
from tests.train.toy import Toy, config

ROOT = Path(__file__).parents[2]


def write_data(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "clips-train.array_record-00000-of-00001").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of 20 steps with checkpoints 10 and 20."""
    workdir = tmp_path_factory.mktemp("finished")
    write_data(workdir / "data", b"clips")
    loop.train(Toy(config(steps=20, save_every=10, data=str(workdir / "data"))), workdir)
    return workdir


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy that a test may damage."""
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    return workdir


def again(workdir: Path, data: Path, **changes) -> dict:
    return loop.train(Toy(config(**{"steps": 20, "save_every": 10, "data": str(data)} | changes)), workdir)


def test_a_second_run_in_a_workdir_is_refused_and_the_first_goes_on(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-m", "tests.train.toy", str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "metrics.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGSTOP)  # so that it is there for sure
    try:
        with pytest.raises(InputError, match=rf"{tmp_path} is in use by process {first.pid} on .*; wait for its end"):
            loop.train(Toy(), tmp_path)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.terminate()
    first.communicate(timeout=60)
    assert checkpoint.read(str(tmp_path))[0] > 0


def test_a_lock_ends_with_its_process(tmp_path):
    first = subprocess.Popen([sys.executable, "-m", "tests.train.toy", str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
    while not (tmp_path / ".lock").exists() or not (tmp_path / ".lock").read_text():
        time.sleep(0.05)
    first.kill()
    first.communicate()
    with loop.hold(tmp_path):
        pass


def test_what_does_not_change_training_may_change(finished, run):
    result = again(
        run, finished / "data", keep=5, log_every=1, sample_every=7, save_every=9, data_val="elsewhere", mesh=""
    )
    assert result["steps"] == 20
    stored = json.loads((run / "config.json").read_text())
    assert stored["keep"] == 5 and stored["save_every"] == 9


def test_the_datas_folder_may_move_but_other_data_is_refused(finished, run, tmp_path):
    moved = write_data(tmp_path / "moved", b"clips")
    assert again(run, moved)["steps"] == 20
    other = write_data(tmp_path / "other", b"other clips")
    with pytest.raises(ConfigError, match="holds a run with config.data="):
        again(run, other)
    write_data(tmp_path / "moved", b"other")
    with pytest.raises(ConfigError, match=f"{run} holds a run on other data than is in {moved} now; put back"):
        again(run, moved)


def test_what_trains_otherwise_is_still_refused(finished, run):
    with pytest.raises(ConfigError, match="config.ema=.*choose another --workdir"):
        again(run, finished / "data", ema=0.5)


def damage(path: Path, how: str) -> None:
    if how == "missing":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        content = file.read_bytes()
        file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "noise": os.urandom(len(content))}[how])


DAMAGES = [
    ("params", "missing"), ("data", "missing"), ("params/_METADATA", "cut"), ("params", "empty"), ("params", "noise"),
    ("data/metadata", "cut"), ("opt_state", "missing"), ("ema", "cut"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "how"), DAMAGES)
def test_a_damaged_newest_checkpoint_is_one_sentence_and_the_one_before_goes_on(finished, run, item, how):
    newest = run / "checkpoints" / "20"
    damage(newest / item, how)
    with pytest.raises(InputError) as error:
        again(run, finished / "data")
    said = str(error.value)
    assert said.startswith(f"{newest} is damaged") and "\n" not in said
    assert f"checkpoint 10 is whole: move {newest} away to go on from it" in said
    shutil.move(newest, run / "damaged")
    assert again(run, finished / "data")["steps"] == 20
    ours, theirs = (checkpoint.read(str(w))[1] for w in (finished, run))
    np.testing.assert_array_equal(ours["out"]["w"], theirs["out"]["w"])


@pytest.mark.parametrize(("item", "how"), [("params", "missing"), ("params", "noise"), ("params/_METADATA", "cut")])
def test_weights_of_a_damaged_checkpoint_are_one_sentence(run, item, how):
    damage(run / "checkpoints" / "20" / item, how)
    with pytest.raises(InputError, match="20 is damaged.* checkpoint 10 is whole") as error:
        checkpoint.read(str(run), "params")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", '{"steps": 2', "[]", "\0\0"])
def test_a_config_that_is_cut_short_is_one_sentence_and_the_run_goes_on_without_it(finished, run, text):
    (run / "config.json").write_text(text)
    for reading in (lambda: again(run, finished / "data"), lambda: checkpoint.recorded(str(run))):
        with pytest.raises(InputError, match="config.json is cut short or damaged .* checkpoint 20 is there: move"):
            reading()
    (run / "config.json").unlink()
    assert again(run, finished / "data")["steps"] == 20


def test_a_config_of_a_newer_version_is_one_sentence(finished, run):
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(values | {"warp": 9}))
    with pytest.raises(ConfigError, match="config.json was written by another version of relic-jax, or changed.*warp"):
        again(run, finished / "data")


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(tmp_path):
    program = (
        "import sys, pathlib\nfrom launch import cli\nfrom relic_jax.train import checkpoint\n"
        "import jax.numpy as jnp, resource, signal\nfrom tests.train.toy import config\n"
        "def main(argv):\n"
        "    saver = checkpoint.Checkpoints(pathlib.Path(sys.argv[0]).parent, config(), 2)\n"
        "    small, large = ({'params': {'w': jnp.arange(n) * 1.0}} for n in (10, 10**6))\n"
        "    saver.save(1, small, {})\n    saver._manager.wait_until_finished()\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as a full disk, for one process\n"
        "    saver.save(2, large, {})\n    saver.close()\n"
        "cli.run(main)\n"
    )
    (tmp_path / "program.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "a checkpoint can't be written" in done.stderr and "checkpoint 1 is whole and kept" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_fingerprints_tell_data_apart_and_know_it_elsewhere(tmp_path):
    one, two = (write_data(tmp_path / name, b"x" * 100_000) for name in ("one", "two"))
    assert shards.fingerprint(one) == shards.fingerprint(two) != ""
    write_data(two, b"x" * 99_999 + b"y")
    assert shards.fingerprint(one) != shards.fingerprint(two)
    (one / ".clips-train.array_record-00001.partial").touch()
    write_data(two, b"x" * 100_000)
    assert shards.fingerprint(one) == shards.fingerprint(two)
    assert shards.fingerprint(tmp_path / "none") == ""


@pytest.mark.slow
def test_twenty_kills_at_any_moment_lose_nothing_that_is_whole(tmp_path):
    """The run that was killed twenty times ends as one that was not, and never lacks a checkpoint it has had."""
    rng, newest = np.random.default_rng(0), 0
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir(), whole.mkdir()
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.train.toy", str(killed)], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not (killed / "checkpoints").exists():
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 8))
        process.kill()
        process.communicate()
        if (killed / "checkpoints").exists() and any(p.name.isdigit() for p in (killed / "checkpoints").iterdir()):
            step = checkpoint.read(str(killed))[0]
            assert step >= newest
            newest = step
    for workdir in (killed, whole):
        loop.train(Toy(), workdir)
    ours, theirs = (checkpoint.read(str(w), "params")[1] for w in (killed, whole))
    for name in ("w", "b"):
        np.testing.assert_array_equal(ours["hidden"][name], theirs["hidden"][name])
