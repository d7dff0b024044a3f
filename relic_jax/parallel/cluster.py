"""Joins the processes of a multi-host run; `watch` notices when one of them is lost.

A process finds its place in

  COORDINATOR_ADDRESS (host:port), NUM_PROCESSES, PROCESS_ID   when these are set (Kubernetes, or by hand), else in
  what `srun` sets                                             one task is one process (Slurm)

and without either it is alone. What one process finds wrong, all of them say.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from relic_jax.config import ConfigError
from relic_jax.errors import InputError
from relic_jax.parallel import watch

_VARIABLES = ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID")
_SLURM_NUMBERS = ("SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
_SLURM_NODES = "SLURM_STEP_NODELIST"
JOIN_S = 300
_SENTENCE = 1000  # bytes of an error that travel to the others


@dataclasses.dataclass(frozen=True)
class Place:
    """A process's place among all.

    Fields:
      coordinator: host:port of process 0's coordination service.
      count: of processes.
      index: this one's, from 0.
    """

    coordinator: str
    count: int
    index: int

    @property
    def port(self) -> int:
        return int(self.coordinator.rsplit(":", 1)[1])


def place(environ: Mapping[str, str] | None = None) -> Place | None:
    """Where the environment says that this process stands; None: it is alone.

    Raises:
      InputError: one of the variables is missing or makes no sense; names it.
    """
    environ = os.environ if environ is None else environ
    given = {name: environ[name] for name in _VARIABLES if environ.get(name)}
    if given:
        return _from_variables(given)
    if _number(environ, "SLURM_STEP_NUM_TASKS", "1") > 1:
        return _from_slurm(environ)
    return None


def _from_variables(given: Mapping[str, str]) -> Place:
    missing = [name for name in _VARIABLES if name not in given]
    if missing:
        raise InputError(
            f"{', '.join(given)} is set but {' and '.join(missing)} is not; a multi-host run needs all three "
            "(COORDINATOR_ADDRESS is host:port of process 0)"
        )
    address, (count, index) = given["COORDINATOR_ADDRESS"], (given[name] for name in _VARIABLES[1:])
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"COORDINATOR_ADDRESS={address!r}: expected host:port")
    if not count.isdigit() or not index.isdigit() or not int(index) < int(count):
        raise InputError(f"NUM_PROCESSES={count!r}, PROCESS_ID={index!r}: expected 0 <= PROCESS_ID < NUM_PROCESSES")
    return Place(address, int(count), int(index))


def _from_slurm(environ: Mapping[str, str]) -> Place:
    missing = [name for name in (*_SLURM_NUMBERS, _SLURM_NODES) if not environ.get(name)]
    if missing:
        raise InputError(
            f"SLURM_STEP_NUM_TASKS is {environ['SLURM_STEP_NUM_TASKS']} but {' and '.join(missing)} is not set; start "
            "the program with srun, or unset SLURM_STEP_NUM_TASKS to run it alone"
        )
    job, count, index = (_number(environ, name) for name in _SLURM_NUMBERS)
    if not index < count:
        raise InputError(f"SLURM_PROCID={index}: expected less than SLURM_STEP_NUM_TASKS={count}")
    # A port of the job's own, so that two jobs on one node don't meet; above the ephemeral ports of most systems.
    port = 61_000 + job % 4_000
    alone = _number(environ, "SLURM_STEP_NUM_NODES", "1") == 1
    host = (environ.get("SLURM_LAUNCH_NODE_IPADDR") if alone else None) or _first_host(environ[_SLURM_NODES])
    return Place(f"{host}:{port}", count, index)


def _number(environ: Mapping[str, str], name: str, default: str = "") -> int:
    value = environ.get(name) or default
    if not (value.isascii() and value.isdigit()):
        raise InputError(f"{name}={value!r}: expected a whole number, as srun sets it")
    return int(value)


def _first_host(nodes: str) -> str:
    """The first name in Slurm's list: `node1`, `node1,node2`, `node[007-9,12],other`."""
    name, bracket, rest = nodes.partition("[")
    if not bracket or "," in name:
        return name.split(",")[0]
    return name + rest.replace("]", ",").replace("-", ",").split(",")[0]


def join(at: Place) -> None:
    """Connects this process with the others; before anything else of JAX runs.

    Raises:
      InputError: the port is taken, or nobody answers at the coordinator's address.
    """
    if at.index == 0:
        _check_port(at)
    else:
        _wait_for(at)
    # JAX aborts when not all come in time; this says who is waiting, and is first.
    on_sigterm = signal.getsignal(signal.SIGTERM)
    late = threading.Timer(JOIN_S, _nobody_came, [at])
    late.daemon = True
    late.start()
    jax.distributed.initialize(
        at.coordinator,
        at.count,
        at.index,
        cluster_detection_method="deactivate",
        initialization_timeout=2 * JOIN_S,
        heartbeat_timeout_seconds=100 * watch.SILENT_S,  # `watch` is quicker, and says who is missing
        shutdown_timeout_seconds=watch.SILENT_S,
    )
    late.cancel()
    signal.signal(signal.SIGTERM, on_sigterm)  # JAX's service has taken it
    if at.index:
        watch.watch_coordinator(lambda: _answers(at))
    watch.start(at.count)


def _wait_for(at: Place) -> None:
    until = time.monotonic() + JOIN_S
    while not _answers(at):
        if time.monotonic() > until:
            raise InputError(
                f"process {at.index} of {at.count}: nobody answers at {at.coordinator} after {JOIN_S} s; "
                "process 0 must be started too, and COORDINATOR_ADDRESS be its host and port"
            )
        time.sleep(0.5)


def _answers(at: Place) -> bool:
    host = at.coordinator.rsplit(":", 1)[0].strip("[]")
    try:
        socket.create_connection((host, at.port), timeout=5).close()
    except OSError:
        return False
    return True


def _nobody_came(at: Place) -> None:
    watch.leave(2, f"process {at.index} of {at.count}: not all others came to {at.coordinator} within {JOIN_S} s")


def _check_port(at: Place) -> None:
    with contextlib.closing(socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that a dead run left is free
        try:
            probe.bind(("", at.port))
        except OSError as error:
            raise InputError(f"{at.coordinator}: port {at.port} can't be had here ({error.strerror})") from error


def check_same(what: str, description: str) -> None:
    """Compares a description between all processes, before they compile anything large together.

    Raises:
      InputError: on every process, naming those that differ from process 0.
    """
    if watch.alone():
        return
    digest = np.frombuffer(hashlib.sha256(description.encode()).digest(), np.uint8)
    every = multihost_utils.process_allgather(digest)
    different = [str(i) for i, other in enumerate(every) if not np.array_equal(other, every[0])]
    if different:
        raise InputError(f"process {', '.join(different)} has another {what} than process 0; start all with the same")


def check_shared(folder: Path) -> None:
    """Every process sees the same folder.

    Raises:
      InputError: on every process, naming one that doesn't.
    """
    if watch.alone():
        return
    mark, first = folder / ".seen_by_all", distributed.global_state.process_id == 0

    def look() -> None:
        if not mark.exists():
            raise InputError(
                f"{folder} is not what process 0 has under this name; it must lie where all processes see it"
            )

    try:
        together(mark.touch if first else lambda: None)
        together(look)
    finally:
        if first:
            mark.unlink(missing_ok=True)


def together[T](make: Callable[[], T]) -> T:
    """What `make` gives, once it has given it on every process; every process must call this.

    Raises:
      InputError: on every process the same, when it failed on some; says on which.
      Exception: what `make` raised here, if that wasn't bad input.
    """
    if watch.alone():
        return make()
    made, error = None, None
    try:
        made = make()
    except Exception as failed:
        error = failed
    said = "" if error is None else f"{error}" or repr(error)
    every = gather(said)
    if not any(every):
        return made
    if error is not None and not isinstance(error, InputError | ConfigError):
        raise error
    first = next(i for i, sentence in enumerate(every) if sentence)
    raise InputError(every[0] if all(every) else f"process {first}: {every[first]}") from error


def gather(said: str) -> list[str]:
    """What every process said, in their order; each must say something, if only nothing."""
    line = np.frombuffer(said.encode()[:_SENTENCE].ljust(_SENTENCE, b"\0"), np.uint8)
    every = multihost_utils.process_allgather(line)
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in every]


def any_process(flag: bool) -> bool:
    """Whether `flag` is true on any process; every process must ask."""
    return flag if watch.alone() else bool(multihost_utils.process_allgather(np.array(flag)).any())
