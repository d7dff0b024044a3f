"""`launch.train` with a config of stage `ode_data`: it writes a data set, and says what is wrong in one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

from relic_jax.data import loader
from tests.small import frames_of
from tests.train import encoded

ROOT = Path(__file__).parents[2]
CONFIG = """
from relic_jax.config import to_config_dict
from relic_jax.data.trajectories import TrajectoryConfig
from tests.train import encoded


def get_config():
    return to_config_dict(
        TrajectoryConfig("ode_data", encoded.model(), "FOLDER/student.safetensors", "FOLDER/clips", FRAMES, 3, steps=4)
    )
"""


def launch(*arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "launch.train", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_writes_trajectories_and_reports(tmp_path):
    encoded.write(tmp_path, encoded.model(), 5, clips=2)
    config, out = tmp_path / "config.py", tmp_path / "out"
    config.write_text(CONFIG.replace("FOLDER", str(tmp_path)).replace("FRAMES", str(frames_of(5))))
    arguments = [f"--config={config}", f"--workdir={out}", f"--json={tmp_path / 'result.json'}", "--config.workers=1"]
    done = launch(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ode_data: 3 trajectories in ") and "3/3" in done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["clips"] == result["clips_made"] == 3 and result["size_bytes"] > 0 and result["wall_s"] > 0
    assert len(loader.Latents(out, 5, fields=loader.TRAJECTORY_FIELDS)) == 3
    refused = launch(*arguments, "--config.guidance=1.5")
    assert refused.returncode == 2 and refused.stdout == ""
    assert "already holds a split 'train' with guidance=4.0, this one has guidance=1.5" in refused.stderr
    assert "Traceback" not in refused.stderr
