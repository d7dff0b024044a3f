"""launch/slurm/train.sbatch on a real Slurm of one node: two tasks train a small teacher, are stopped and requeued."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from relic_jax.train import checkpoint, metrics
from tests.launch.slurm import Slurm, Unavailable
from tests.train import encoded

ROOT = Path(__file__).parents[2]
LENGTH = 6
CONFIG = """
from relic_jax.config import to_config_dict
from tests.small import frames_of
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.teacher import TeacherConfig
from tests.train import encoded


def get_config():
    return to_config_dict(
        TeacherConfig(
            stage="teacher", model=encoded.model(), vae="{folder}/vae.safetensors", data="{folder}/clips",
            data_val="{folder}/clips", steps=5, batch=2, frames=frames_of({length}),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup=1), mesh="data=2", log_every=1, sample_every=1,
            save_every=100,
        )
    )
"""


@pytest.fixture
def slurm(tmp_path):
    folder = tmp_path / "slurm"
    folder.mkdir()
    try:
        with Slurm(folder) as running:
            yield running
    except Unavailable as reason:
        pytest.skip(f"Slurm can't run here: {reason}")


def wait_for(ready, log, timeout_s=500):
    until = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < until, log.read_text() if log.exists() else "the job did not start"
        time.sleep(0.2)


@pytest.mark.timeout(1100)  # seconds of work, but four launches of JAX
def test_two_tasks_are_stopped_requeued_and_go_on(slurm, tmp_path):
    encoded.write(tmp_path, encoded.model(), LENGTH)
    (tmp_path / "config.py").write_text(CONFIG.format(folder=tmp_path, length=LENGTH))
    workdir, log = tmp_path / "run", tmp_path / "job.log"
    submitted = slurm.run(
        "sbatch", "--parsable", "--nodes=1", "--ntasks-per-node=2", f"--output={log}", f"--chdir={ROOT}",
        "launch/slurm/train.sbatch", f"--config={tmp_path}/config.py", f"--workdir={workdir}",
        PYTHON=sys.executable, JAX_PLATFORMS="cpu", XLA_FLAGS="",
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    lines = workdir / "metrics.jsonl"
    # Step 1 is written before its samples are made, and making those takes longer than the signal.
    wait_for(lambda: lines.exists() and '"loss"' in lines.read_text(), log)
    assert slurm.run("scancel", "--signal=TERM", job).returncode == 0
    wait_for(lambda: slurm.show(job)["JobState"] == "PENDING", log)
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm lets requeued jobs wait two minutes
    wait_for(lambda: slurm.show(job)["JobState"] in ("COMPLETED", "FAILED"), log)
    said, state = log.read_text(), slurm.show(job)
    assert (state["JobState"], state["Restarts"], state["ExitCode"]) == ("COMPLETED", "1", "0:0"), said
    assert "exit status 143: requeued, goes on from the newest checkpoint" in said
    assert said.count("stopped and saved at step 2 of 5") == 1 and said.count("teacher: 5 steps, loss ") == 1
    assert [row["step"] for row in metrics.read(workdir) if "loss" in row] == [1, 2, 3, 4, 5]
    assert checkpoint.read(str(workdir))[0] == 5
    assert sorted(path.name for path in (workdir / "samples").iterdir())[-1] == "generated_0000005.png"


def test_the_template_is_a_script_that_bash_understands():
    subprocess.run(["bash", "-n", "launch/slurm/train.sbatch"], cwd=ROOT, check=True)
