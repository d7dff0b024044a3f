import socket
import time

import pytest

from relic_jax.errors import InputError
from relic_jax.parallel import cluster

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


def test_the_watchdog_ends_a_silent_process(capfd):
    ended = []
    with cluster.Watchdog(0.2, ended.append) as dog:
        time.sleep(0.5)
        assert not ended  # nothing is expected before the first step
        dog.alive()
        with dog.paused():
            time.sleep(0.5)
        for _ in range(8):
            time.sleep(0.05)
            dog.alive()
        assert not ended
        time.sleep(0.6)
    assert ended == [cluster.LOST]
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "no step was completed for 0 s" in error


def test_alone_every_process_agrees():
    cluster.check_same("configuration", "anything")
    assert cluster.any_process(True) and not cluster.any_process(False)
