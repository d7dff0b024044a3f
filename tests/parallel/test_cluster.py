import socket
import time
from pathlib import Path

import pytest
import yaml

from relic_jax.errors import InputError
from relic_jax.parallel import cluster, watch

ALL = {"COORDINATOR_ADDRESS": "node1:8476", "NUM_PROCESSES": "4", "PROCESS_ID": "3"}
SLURM = {
    "SLURM_JOB_ID": "4123",
    "SLURM_PROCID": "1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}


def test_alone():
    assert cluster.place({}) is None
    assert cluster.place(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert cluster.place({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}) is None  # a batch script's own process


def test_variables_come_before_slurm():
    assert cluster.place(ALL) == cluster.Place("node1:8476", 4, 3)
    assert cluster.place(ALL | SLURM) == cluster.Place("node1:8476", 4, 3)


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NODELIST"])
def test_half_a_slurm_environment_is_refused_by_the_name_of_what_is_missing(name):
    half = {key: value for key, value in SLURM.items() if key != name}
    with pytest.raises(InputError, match=f"^SLURM_STEP_NUM_TASKS is 2 but {name} is not set; start"):
        cluster.place(half)


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"])
def test_slurm_numbers_that_are_none_are_named(name):
    with pytest.raises(InputError, match=f"^{name}='two': expected a whole number, as srun sets it"):
        cluster.place(SLURM | {name: "two"})


def test_slurm():
    assert cluster.place(SLURM) == cluster.Place("gpu007:61123", 2, 1)
    one_node = SLURM | {"SLURM_STEP_NUM_NODES": "1"}
    assert cluster.place(one_node).coordinator == "10.0.0.1:61123"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[1-3]", "node1"),
        ("node[007,009-012],other", "node007"),
        ("login,node[1-3]", "login"),
    ],
)
def test_first_host(nodes, first):
    assert cluster.place(SLURM | {"SLURM_STEP_NODELIST": nodes}).coordinator.split(":")[0] == first


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"COORDINATOR_ADDRESS": ""}, "NUM_PROCESSES, PROCESS_ID is set but COORDINATOR_ADDRESS is not"),
        ({"NUM_PROCESSES": "", "PROCESS_ID": ""}, "is set but NUM_PROCESSES and PROCESS_ID is not"),
        ({"COORDINATOR_ADDRESS": "node1"}, "COORDINATOR_ADDRESS='node1': expected host:port"),
        ({"COORDINATOR_ADDRESS": "node1:99999"}, "expected host:port"),
        ({"PROCESS_ID": "4"}, "PROCESS_ID='4': expected 0 <= PROCESS_ID < NUM_PROCESSES"),
        ({"NUM_PROCESSES": "two"}, "NUM_PROCESSES='two'"),
    ],
)
def test_variables_that_make_no_sense(changed, sentence):
    with pytest.raises(InputError, match=sentence):
        cluster.place(ALL | changed)


def test_a_port_that_is_taken():
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"localhost:{port}: port {port} can't be had here"):
            cluster.join(cluster.Place(f"localhost:{port}", 2, 0))


def test_the_watchdog_ends_a_silent_process():
    ended = []
    with watch.Watchdog(0.2, lambda *said: ended.append(said)) as dog:
        for _ in range(2):
            with dog.step():  # these compile
                time.sleep(0.3)
        with dog.step():
            time.sleep(0.06)
        time.sleep(0.8)  # nobody waits for anything
        with dog.step():
            time.sleep(0.3)  # less than ten of the longest
        assert not ended
        with dog.step():
            time.sleep(5)
    ((status, error),) = ended
    assert status == watch.LOST
    assert "no step was completed for 3 s; a process hangs; started again, the same command goes on" in error


def test_alone_every_process_agrees():
    cluster.check_same("configuration", "anything")
    assert cluster.any_process(True) and not cluster.any_process(False)


def test_together_is_make_alone():
    assert cluster.together(lambda: 3) == 3
    with pytest.raises(InputError, match="no such clips"):
        cluster.together(_no_clips)


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (["", "no such clips", ""], "process 1: no such clips"),
        (["no such clips"] * 3, "no such clips"),
    ],
)
def test_together_says_on_every_process_what_one_lacks(monkeypatch, others, sentence):
    monkeypatch.setattr(cluster.watch, "alone", lambda: False)
    monkeypatch.setattr(cluster, "gather", lambda said: others)
    for make in (lambda: 3, _no_clips):
        with pytest.raises(InputError) as caught:
            cluster.together(make)
        assert str(caught.value) == sentence


def test_an_error_of_the_program_keeps_its_traceback_where_it_happened(monkeypatch):
    monkeypatch.setattr(cluster.watch, "alone", lambda: False)
    monkeypatch.setattr(cluster, "gather", lambda said: ["", said])
    with pytest.raises(ZeroDivisionError):
        cluster.together(lambda: 1 / 0)


def _no_clips():
    raise InputError("no such clips")


def test_a_folder_that_is_not_shared(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster.watch, "alone", lambda: False)
    monkeypatch.setattr(cluster, "gather", lambda said: [said])
    cluster.check_shared(tmp_path)
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(cluster.distributed.global_state, "process_id", 1)
    with pytest.raises(InputError, match="is not what process 0 has under this name"):
        cluster.check_shared(tmp_path)


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(cluster, "JOIN_S", 0)
    with socket.socket() as unused:
        unused.bind(("localhost", 0))  # and does not listen
        at = cluster.Place(f"localhost:{unused.getsockname()[1]}", 2, 1)
        with pytest.raises(
            InputError, match=r"process 1 of 2: nobody answers at localhost:\d+ after 0 s; process 0 must"
        ):
            cluster.join(at)


def test_the_kubernetes_template_says_what_a_process_needs():
    jobset = yaml.safe_load((Path(__file__).parents[2] / "launch/kubernetes/train.yaml").read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    variables = {entry["name"]: entry for entry in container["env"]}
    index = variables["PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert job["completionMode"] == "Indexed"
    given = {name: entry["value"] for name, entry in variables.items() if "value" in entry}
    at = cluster.place(given | {"PROCESS_ID": "0"})
    assert at.count == job["parallelism"] == job["completions"]
    # The first pod of the first job of this part, in the service that a JobSet has: its own name.
    name = jobset["metadata"]["name"]
    assert at.coordinator == f"{name}-{replicated['name']}-0-0.{name}:{at.port}"
    rule = job["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert rule["values"] == [watch.LOST, 143] and rule["containerName"] == container["name"]
    assert container["command"] == ["python", "-m", "launch.train"] and job["backoffLimit"] == 0


def test_the_slurm_template_requeues_what_goes_on():
    script = (Path(__file__).parents[2] / "launch/slurm/train.sbatch").read_text()
    assert f"{watch.LOST} | 143)" in script and "-m launch.train" in script
