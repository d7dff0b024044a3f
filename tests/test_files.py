"""Files that are whole or not there, and what dead processes leave."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relic_jax import files
from relic_jax.errors import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    with files.replacing(tmp_path / "a") as partial:
        partial.write_text("new")
        assert not (tmp_path / "a").exists()
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "new"


def test_what_breaks_off_leaves_what_was(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError), files.replacing(tmp_path / "a") as partial:
        partial.write_text("half")
        raise KeyError
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


HALF = """
import sys, time
from relic_jax import files
with files.replacing(sys.argv[1]) as partial:
    partial.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_cleared_and_a_living_ones_is_not(tmp_path):
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", HALF, str(tmp_path / "a")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == [b"ready\n"] * 2
    processes[0].kill()
    processes[0].wait()
    assert len(names(tmp_path)) == 2
    with files.replacing(tmp_path / "a") as partial:
        partial.write_text("new")
    assert len(names(tmp_path)) == 2 and (tmp_path / "a").read_text() == "new"  # it, and the living one's
    processes[1].kill()
    processes[1].wait()
    with files.replacing(tmp_path / "b"):  # another file's are not this one's to clear
        assert len(names(tmp_path)) == 3
    files.temporary(tmp_path / "a")
    assert names(tmp_path) == ["a", "b"]


def test_a_folder_that_was_left_is_cleared_too(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine = files.temporary(tmp_path / "model")
    left = mine.with_name(mine.name.replace(f".{os.getpid()}.", f".{dead.pid}."))
    left.mkdir()
    (left / "dit.safetensors").touch()
    files.temporary(tmp_path / "model")
    assert names(tmp_path) == []


def test_long_names_and_none_are_refused(tmp_path):
    for name, said in (
        ("n" * 201, "its name has 201 bytes"),
        ("\u00e9" * 101, "its name has 202 bytes"),
        ("a\0b", "no name"),
    ):
        with pytest.raises(InputError, match=said):
            files.temporary(tmp_path / name)
    files.temporary(tmp_path / ("n" * 200)).touch()


def test_a_file_by_another_name_is_the_same(tmp_path):
    one = tmp_path / "one"
    assert files.same(one, tmp_path / "x" / ".." / "one") and not files.same(one, tmp_path / "other")
    one.touch()
    (tmp_path / "soft").symlink_to(one)
    os.link(one, tmp_path / "hard")
    (tmp_path / "copy").touch()
    assert files.same(one, tmp_path / "soft") and files.same(tmp_path / "hard", one)
    assert not files.same(one, tmp_path / "copy")


@pytest.mark.parametrize("round", range(5))
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new(tmp_path, round):
    program = (
        "import sys\nfrom relic_jax import files\nprint('ready', flush=True)\n"
        "for i in range(10**9):\n    with files.replacing(sys.argv[1]) as p:\n        p.write_text('w' * 100_000)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a")]
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)
    process.stdout.readline()
    time.sleep(0.05 + 0.013 * round)
    process.kill()
    process.wait()
    assert (tmp_path / "a").read_text() == "w" * 100_000
