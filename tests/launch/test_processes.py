"""Training in several real processes on one machine: collectives go through gloo, each process has two devices."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from relic_jax.models import weights
from relic_jax.parallel import watch
from relic_jax.train import checkpoint, loop
from tests.launch import toy_config, toy_host
from tests.train import encoded
from tests.train.toy import Toy

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1100)
CONFIG = "--config=tests/launch/toy_config.py"


class Job:
    """The processes of one launch."""

    def __init__(self, folder, workdir, count, *arguments, **environment):
        self.folder, self.workdir, self.count = folder, workdir, count
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        environment = {
            "COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        } | environment
        command = [sys.executable, "-m", "tests.launch.toy_host", str(count), str(folder)]
        self.parent = subprocess.Popen(
            [*command, CONFIG, f"--workdir={workdir}", *arguments], cwd=ROOT, env=os.environ | environment
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for index in range(self.count):
            if self.status(index) is None:
                self.signal(index, signal.SIGKILL)
        self.parent.wait(30)

    def status(self, index):
        file = self.folder / f"{index}.status"
        text = file.read_text() if file.exists() else ""
        return int(text) if text else None

    def said(self, index):
        return (self.folder / f"{index}.txt").read_text()

    def errors(self, index):
        return [line for line in self.said(index).splitlines() if line.startswith("error: ")]

    def signal(self, index, number):
        pid = self.folder / f"{index}.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), number)

    def reach(self, step, timeout_s=500):
        """Waits until a step is in the metrics."""
        until = time.monotonic() + timeout_s
        while not any(row["step"] >= step for row in rows(self.workdir)):
            assert self.parent.poll() is None, [self.said(index)[-2000:] for index in range(self.count)]
            assert time.monotonic() < until, f"step {step} was not reached"
            time.sleep(0.05)

    def wait(self, timeout_s=500):
        """The exit status of each process."""
        self.parent.wait(timeout_s)
        return [self.status(index) for index in range(self.count)]


def rows(workdir):
    """The complete lines of a run's metrics so far."""
    file = workdir / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    return [row for row in map(json.loads, text[: text.rfind("\n") + 1].splitlines()) if "loss" in row]


def assert_same_trace(workdir, expected):
    """Other processes and devices add up in another order; the last digits differ."""
    ours, theirs = rows(workdir), rows(expected)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, 21))
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=2e-5, err_msg=str(one["step"]))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The run in one process, on eight devices."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    loop.train(toy_host.ToyOnHosts(toy_config.run()), workdir)
    return workdir


def lose(folder, number, lost=2):
    """Four processes train; one of them gets a signal at step 10. Returns the workdir."""
    workdir = folder / "run"
    with Job(folder / "job", workdir, 4, TOY_PAUSE="0.3") as job:
        job.reach(10)
        job.signal(lost, number)
        begun = time.monotonic()
        while any(job.status(index) is None for index in range(4) if index != lost):
            assert time.monotonic() - begun < 60, "the others did not end"
            time.sleep(0.1)
        for index in set(range(4)) - {lost}:
            assert job.status(index) == watch.LOST, job.said(index)[-3000:]
            (sentence,) = job.errors(index)
            assert sentence.startswith(f"error: process {index} of 4: ")
            assert any(part in sentence for part in (f"process {lost} ", "another process"))
            assert sentence.endswith("started again, the same command goes on from the last checkpoint")
    return workdir


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return lose(tmp_path_factory.mktemp("killed"), signal.SIGKILL)


def test_four_processes_go_on_with_the_same_trace(killed, undisturbed, tmp_path):
    before = rows(killed)
    assert 10 <= before[-1]["step"] < 20
    saved = checkpoint.read(str(killed))[0]
    assert saved in (4, 8, 12)
    workdir = shutil.copytree(killed, tmp_path / "run")
    with Job(tmp_path / "job", workdir, 4) as job:
        assert job.wait() == [0, 0, 0, 0], job.said(0)
    # The steps after the checkpoint were made twice, by other processes: they agree to the last bit.
    assert saved < before[-1]["step"] and rows(workdir)[: len(before)] == before
    assert_same_trace(workdir, undisturbed)
    assert sorted(int(p.name) for p in (workdir / "checkpoints").iterdir()) == [16, 20]
    assert checkpoint.read(str(workdir))[1]["mean"] == 3.0  # `finish` is made by each process, and kept


def test_two_processes_go_on_and_one_stops_both(killed, undisturbed, tmp_path):
    workdir = shutil.copytree(killed, tmp_path / "run")
    with Job(tmp_path / "job", workdir, 2, "--config.mesh=data=2,fsdp=2", TOY_PAUSE="0.3") as job:
        job.reach(14)
        job.signal(1, signal.SIGTERM)
        assert job.wait() == [128 + signal.SIGTERM] * 2, job.said(0)
    stopped = checkpoint.read(str(workdir))[0]
    assert 14 <= stopped < 20 and rows(workdir)[-1]["step"] == stopped
    result = loop.train(toy_host.ToyOnHosts(toy_config.run()), workdir)  # in one process, on the old mesh
    assert result["steps"] == 20 and result["signal"] == 0
    assert_same_trace(workdir, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "lost"), [(signal.SIGKILL, 0), (signal.SIGSTOP, 2), (signal.SIGSTOP, 0)])
def test_other_ways_to_lose_a_process(tmp_path, number, lost):
    lose(tmp_path, number, lost)


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--config.seed={i}"], {}, "process 1 has another configuration than process 0; start all with the same"),
        (
            ["--config.mesh=data=8"],
            {},
            "mesh data=8 needs 8 device(s), there are 4: the sizes of its axes must multiply to that",
        ),
        (
            ["--config.mesh=rows=4"],
            {},
            "mesh 'rows=4': 'rows' is no axis, expected some of data, fsdp, seq, tensor as in seq=4",
        ),
        (
            ["--config.mesh=data=4", "--config.batch=6"],
            {},
            "a batch of 6 can't be divided over data=4 x fsdp=1 devices: expected a multiple of 4",
        ),
        (
            ["--config.mesh=data=4", "--config.init_from=FOLDER/wider.safetensors"],
            {},
            "FOLDER/wider.safetensors doesn't fit the config: hidden.b has shape (40,), expected shape (32,)",
        ),
        (["--config.mesh=data=4"], {"TOY_UNREADABLE": "1,0"}, "process 1: clip 7 is unreadable"),
    ],
)
def test_bad_input_is_said_alike_by_all(tmp_path, arguments, environment, sentence):
    weights.save_safetensors(str(tmp_path / "wider.safetensors"), Toy(width=40).weights(jax.random.key(0)))
    arguments = [text.replace("FOLDER", str(tmp_path)) for text in arguments]
    expected = f"error: {sentence.replace('FOLDER', str(tmp_path))}"
    with Job(tmp_path / "job", tmp_path / "run", 2, *arguments, **environment) as job:
        assert job.wait() == [2, 2], job.said(0)
        assert [job.errors(index) for index in range(2)] == [[expected]] * 2


DISTILL = """
from relic_jax.config import to_config_dict
from tests.small import frames_of
from relic_jax.train.distill import DistillConfig
from relic_jax.train.optimizer import OptimizerConfig
from relic_jax.train.terms import score
from tests.train import encoded


def get_config():
    student, adam = "FOLDER/student.safetensors", OptimizerConfig(learning_rate=1e-4, betas=(0.0, 0.999))
    return to_config_dict(
        DistillConfig(
            stage="distill", model=encoded.model(), vae="FOLDER/vae.safetensors", data="FOLDER/clips",
            data_val="FOLDER/clips", init_from=student, steps=4, batch=4, micro_batch=4, frames=frames_of(6),
            optimizer=adam, critic_optimizer=adam, terms={"score": score.Config(teacher=student)}, generator_every=2,
            mesh="data=2,fsdp=2", log_every=1, sample_every=100, save_every=2,
        )
    )
"""


@pytest.mark.slow
def test_two_processes_distil_as_one_does(tmp_path):
    """Student, critic and teacher divided over the devices of both; the student learns at steps 2 and 4."""
    encoded.write(tmp_path, encoded.model(), 6)
    config = tmp_path / "config.py"
    config.write_text(DISTILL.replace("FOLDER", str(tmp_path)))
    for count in (1, 2):
        devices = f"--xla_force_host_platform_device_count={4 // count}"
        workdir = tmp_path / f"run{count}"
        with Job(tmp_path / f"job{count}", workdir, count, f"--config={config}", XLA_FLAGS=devices) as job:
            assert job.wait(1000) == [0] * count, job.said(0)[-3000:]
    one, two = rows(tmp_path / "run1"), rows(tmp_path / "run2")
    assert [row["step"] for row in one] == [1, 2, 3, 4] and "dmd_gradient" in one[1] and "dmd_gradient" not in one[0]
    for row, other in zip(one, two, strict=True):
        assert row.keys() == other.keys()
        np.testing.assert_allclose(list(row.values()), list(other.values()), rtol=1e-4, err_msg=str(row["step"]))
