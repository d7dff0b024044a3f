"""A small chain from rendered rooms to a video, by `launch.recipe`: killed in the middle, it goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relic_jax.train import metrics

ROOT = Path(__file__).parents[2]


def command(folder: Path, size: str) -> dict:
    """LLVM needn't try hard: nearly all of it is compilation; what is compiled again comes from a cache."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "",
    }
    arguments = [sys.executable, "-m", "launch.recipe", f"{ROOT}/recipes/tiny.py:{size}", "--nocurves"]
    return {"args": arguments, "env": environment, "cwd": folder, "text": True}


def wait_for(path: Path, running: subprocess.Popen) -> None:
    while not path.exists():
        assert running.poll() is None, "the recipe ended early"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(1700)
@pytest.mark.parametrize(("size", "student"), [("toy_5s", "distill_5s"), ("toy", "distill_20s")])
def test_a_toy_chain_runs_whole_and_goes_on_where_it_was_killed(tmp_path, size, student):
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen(**command(tmp_path, size), stdout=said, stderr=said)
        wait_for(tmp_path / "runs/tiny_teacher_5s/checkpoints/1", first)
        first.send_signal(signal.SIGKILL)
        first.wait()
    made = (tmp_path / "runs/tiny_vae_short/metrics.jsonl").stat().st_mtime_ns
    # The trainer that was left alone ends by itself; until then a second run is refused.
    until = time.monotonic() + 600
    while True:
        done = subprocess.run(**command(tmp_path, size), capture_output=True)
        if done.returncode != 2 or time.monotonic() > until:
            break
        assert "is running as process" in done.stderr, done.stderr
        time.sleep(1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "== clips_train " not in done.stdout and f"== {student} " in done.stdout
    assert (tmp_path / "runs/tiny_vae_short/metrics.jsonl").stat().st_mtime_ns == made
    for run in ("vae_short", "teacher_5s", "ode", student):
        assert [row["step"] for row in metrics.read(tmp_path / f"runs/tiny_{run}") if "loss" in row] == [1, 2]
    assert json.loads((tmp_path / "out/tiny_demo.json").read_text())["frames"] == 33
    assert (tmp_path / "out/tiny_demo.mp4").stat().st_size > 1000 and (tmp_path / "out/tiny/dit.safetensors").exists()
    report = json.loads((tmp_path / "runs/recipe_report/report.json").read_text())
    assert {row["state"] for row in report["steps"]} == {"done"}
