"""Joins the processes of a multi-host run, and notices when one of them is lost.

A process finds its place in

  COORDINATOR_ADDRESS (host:port), NUM_PROCESSES, PROCESS_ID   when these are set (Kubernetes, or by hand), else in
  what `srun` sets                                             one task is one process (Slurm)

and without either it is alone. JAX's coordination service, which runs in process 0, holds the rest together: it tells
everyone when a process dies, and hands out one's SIGTERM to all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from relic_jax.errors import InputError

LOST = 75  # exit status (EX_TEMPFAIL): the same command, started again, goes on from the last checkpoint

_VARIABLES = ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID")
_JOIN_S = 300
_HEARTBEAT_S = 20


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
    if int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
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
    # A port of the job's own, so that two jobs on one node don't meet; above the ephemeral ports of most systems.
    port = 61_000 + int(environ["SLURM_JOB_ID"]) % 4_000
    host = environ.get("SLURM_LAUNCH_NODE_IPADDR") if int(environ.get("SLURM_STEP_NUM_NODES", "1")) == 1 else None
    host = host or _first_host(environ["SLURM_STEP_NODELIST"])
    return Place(f"{host}:{port}", int(environ["SLURM_STEP_NUM_TASKS"]), int(environ["SLURM_PROCID"]))


def _first_host(nodes: str) -> str:
    """The first name in Slurm's list: `node1`, `node1,node2`, `node[007-9,12],other`."""
    name, bracket, rest = nodes.partition("[")
    if not bracket or "," in name:
        return name.split(",")[0]
    return name + rest.replace("]", ",").replace("-", ",").split(",")[0]


def join(at: Place) -> None:
    """Connects this process with the others; before anything else of JAX runs.

    Raises:
      InputError: the port is taken, or the others don't come in time.
    """
    if at.index == 0:
        _check_port(at)
    try:
        jax.distributed.initialize(
            at.coordinator,
            at.count,
            at.index,
            cluster_detection_method="deactivate",
            initialization_timeout=_JOIN_S,
            heartbeat_timeout_seconds=_HEARTBEAT_S,
        )
    except RuntimeError as error:
        raise InputError(
            f"process {at.index} of {at.count} could not meet the others at {at.coordinator} within {_JOIN_S} s: "
            f"{str(error).splitlines()[0]}"
        ) from error


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
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(description.encode()).digest(), np.uint8)
    every = multihost_utils.process_allgather(digest)
    different = [str(i) for i, other in enumerate(every) if not np.array_equal(other, every[0])]
    if different:
        raise InputError(f"process {', '.join(different)} has another {what} than process 0; start all with the same")


def any_process(flag: bool) -> bool:
    """Whether `flag` is true on any process; every process must ask."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


class Watchdog:
    """Ends the process, with a line on stderr, when `seconds` pass between two calls of `alive`.

    A collective whose peer hangs waits for ever; nothing in Python can interrupt it. A context manager; the time runs
    from the first `alive` on, which comes after compilation.
    """

    def __init__(self, seconds: float, end: Callable[[int], Any] = os._exit) -> None:
        self._seconds, self._end = seconds, end
        self._last: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._thread.join()

    def alive(self) -> None:
        self._last = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While something of unknown length runs."""
        last, self._last = self._last, None
        yield
        if last is not None:
            self.alive()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            last = self._last
            if last is not None and time.monotonic() - last > self._seconds:
                say_lost(f"no step was completed for {self._seconds:.0f} s; a process hangs or was lost")
                self._end(LOST)
                return


def say_lost(reason: str) -> None:
    """The line that ends a run in which a process was lost."""
    print(
        f"error: process {jax.process_index()} of {jax.process_count()}: {reason}; "
        "started again, the same command goes on from the last checkpoint",
        file=sys.stderr,
        flush=True,
    )
