"""Joins the processes of a multi-host run, and notices when one of them is lost.

A process finds its place in

  COORDINATOR_ADDRESS (host:port), NUM_PROCESSES, PROCESS_ID   when these are set (Kubernetes, or by hand), else in
  what `srun` sets                                             one task is one process (Slurm)

and without either it is alone. JAX's coordination service, which runs in process 0, holds the rest together. A lost
peer would leave the others waiting in a collective for ever, or ended by JAX with a stack trace: here each of them
says in one line who is missing, and exits with `LOST`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm
from jax._src import distributed  # its client is the one way to talk to the others without a collective
from jax.experimental import multihost_utils

from relic_jax.config import ConfigError
from relic_jax.errors import InputError

LOST = 75  # exit status (EX_TEMPFAIL): the same command, started again, goes on from the last checkpoint

_VARIABLES = ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID")
_JOIN_S = 300
_BEAT_S = 3
_SILENT_S = 35  # without a beat of a process until it counts as lost
_STEP_S = 60  # the least time that a step may take
_BEATS = "relic_beats/"
_LEFT = "left "  # and a status: the last beat of a process that ends before the others
_SENTENCE = 1000  # bytes of an error that travel to the others

_handlers: list[Any] = []
_ending = threading.Lock()  # taken for ever by the thread that ends this process


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
      InputError: the port is taken, or nobody answers at the coordinator's address.
    """
    if at.index == 0:
        _check_port(at)
    else:
        _wait_for(at)
    # JAX aborts when not all come in time; this says who is waiting, and is first.
    on_sigterm = signal.getsignal(signal.SIGTERM)
    late = threading.Timer(_JOIN_S, _nobody_came, [at])
    late.daemon = True
    late.start()
    jax.distributed.initialize(
        at.coordinator,
        at.count,
        at.index,
        cluster_detection_method="deactivate",
        initialization_timeout=2 * _JOIN_S,
        heartbeat_timeout_seconds=100 * _SILENT_S,  # `_listen` is quicker, and says who is missing
        shutdown_timeout_seconds=_SILENT_S,
    )
    late.cancel()
    signal.signal(signal.SIGTERM, on_sigterm)  # JAX's service has taken it
    if at.index:
        _watch_coordinator(at)
    threading.Thread(target=_listen, args=(at,), daemon=True).start()


def _wait_for(at: Place) -> None:
    until = time.monotonic() + _JOIN_S
    while not _answers(at):
        if time.monotonic() > until:
            raise InputError(
                f"process {at.index} of {at.count}: nobody answers at {at.coordinator} after {_JOIN_S} s; "
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
    _end(2, f"process {at.index} of {at.count}: not all others came to {at.coordinator} within {_JOIN_S} s")


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
    if _alone():
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
    if _alone():
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
    if _alone():
        return make()
    made, error = None, None
    try:
        made = make()
    except Exception as failed:
        error = failed
    said = "" if error is None else f"{error}" or repr(error)
    every = _gather(said)
    if not any(every):
        return made
    if error is not None and not isinstance(error, InputError | ConfigError):
        raise error
    first = next(i for i, sentence in enumerate(every) if sentence)
    raise InputError(every[0] if all(every) else f"process {first}: {every[first]}") from error


def _alone() -> bool:
    return distributed.global_state.num_processes == 1  # `jax.process_count()` would look for devices


def _gather(said: str) -> list[str]:
    line = np.frombuffer(said.encode()[:_SENTENCE].ljust(_SENTENCE, b"\0"), np.uint8)
    every = multihost_utils.process_allgather(line)
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in every]


def any_process(flag: bool) -> bool:
    """Whether `flag` is true on any process; every process must ask."""
    return flag if _alone() else bool(multihost_utils.process_allgather(np.array(flag)).any())


class Watchdog:
    """Ends the process, with a line on stderr, when a step takes longer than `seconds` and than ten of the longest.

    A collective whose peer hangs waits for ever; nothing in Python can interrupt it. A context manager.
    """

    def __init__(self, seconds: float = _STEP_S, end: Callable[[int, str], Any] | None = None) -> None:
        self._seconds, self._end = seconds, end or _end
        self._begun: float | None = None
        self._unlimited = 2  # steps that may compile: the second again, if the first changed where its state lies
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._thread.join()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Around a step; it must wait for the device."""
        begun = time.monotonic()
        self._begun = None if self._unlimited else begun
        yield
        self._begun = None
        if self._unlimited:
            self._unlimited -= 1
        else:
            self._seconds = max(self._seconds, 10 * (time.monotonic() - begun))

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            begun = self._begun
            if begun is not None and time.monotonic() - begun > self._seconds:
                self._end(LOST, _lost(f"no step was completed for {self._seconds:.0f} s; a process hangs"))
                return


def _lost(reason: str) -> str:
    """What to say at the end of a run in which a process was lost."""
    state = distributed.global_state
    return (
        f"process {state.process_id} of {state.num_processes}: {reason}; "
        "started again, the same command goes on from the last checkpoint"
    )


def _listen(at: Place) -> None:
    """Ends this process when another has not beaten for too long."""
    now = time.monotonic()
    heard = {index: ("", now) for index in range(at.count)}
    beats: dict[str, Any] = {"all": {}, "when": now}
    threading.Thread(target=_beat, args=(at, beats), daemon=True).start()
    while distributed.global_state.client is not None:
        time.sleep(1)
        now = time.monotonic()
        if now - beats["when"] > _SILENT_S:  # the service does not answer: nobody can be heard
            _end(LOST, _lost(f"process 0 has not been heard of for {_SILENT_S} s and is lost"))
        _follow(beats["all"])
        for index, (beat, when) in heard.items():
            newest = beats["all"].get(f"{_BEATS}{index}", "")
            heard[index] = (newest, now) if newest != beat else (beat, when)
            if now - when > _SILENT_S and newest == beat:
                _end(LOST, _lost(f"process {index} has not been heard of for {_SILENT_S} s and is lost"))


def _beat(at: Place, beats: dict[str, Any]) -> None:
    """Beats, and notes the others' beats and when; a call waits for as long as the service is silent."""
    while (client := distributed.global_state.client) is not None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            if not _ending.locked():
                client.key_value_set(f"{_BEATS}{at.index}", str(time.monotonic()), allow_overwrite=True)
            beats["all"] = dict(client.key_value_dir_get(_BEATS))
            beats["when"] = time.monotonic()
        time.sleep(_BEAT_S)


def _follow(beats: Mapping[str, str]) -> None:
    """Ends as a process did that said so: an error of one must not look like a loss, which is worth a new start."""
    left = {key.rsplit("/", 1)[1]: int(beat[len(_LEFT) :]) for key, beat in beats.items() if beat.startswith(_LEFT)}
    left.pop(str(distributed.global_state.process_id), None)
    for index, status in left.items():
        if status == LOST:
            _end(LOST, _lost(f"process {index} has lost another process and ended"))
        state = distributed.global_state
        _end(status, f"process {state.process_id} of {state.num_processes}: process {index} failed, and says why")


def _watch_coordinator(at: Place) -> None:
    """Gives a meaning to the abort with which JAX ends a process as soon as process 0 is gone."""

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(number: int) -> None:
        if not _answers(at):
            if _ending.acquire(blocking=False):
                _say(_lost("process 0 was lost"))
            os._exit(LOST)

    _handlers.append(aborted)  # for as long as the process lives
    ctypes.CDLL(None).signal(signal.SIGABRT, aborted)


@contextlib.contextmanager
def losing_ends() -> Iterator[None]:
    """What the loss of a peer makes of a collective ends this process, with a line and `LOST`.

    The run can't be left in any other way: what it would wait for on its way out waits for the peer.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if _alone() or str(error).startswith(("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")):
            raise
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _follow(dict(distributed.global_state.client.key_value_dir_get(_BEATS)))
        _end(LOST, _lost(f"another process was lost ({str(error).splitlines()[0][:200]})"))


@contextlib.contextmanager
def failing_ends() -> Iterator[None]:
    """Around a whole program: a process that fails ends at once, instead of waiting for the others to end with it."""
    try:
        yield
    except SystemExit as end:
        if jax.distributed.is_initialized() and end.code in (1, 2, LOST):
            _end(end.code)
        raise
    except BaseException:
        if jax.distributed.is_initialized():
            traceback.print_exc()
            _end(1)
        raise


def _say(sentence: str) -> None:
    tqdm.tqdm.write(f"error: {sentence}", file=sys.stderr)  # on a line of its own, not behind a progress bar
    sys.stderr.flush()


def _end(status: int, sentence: str = "") -> None:
    """Exits without waiting for the others, and lets them know; of several threads that want to, the first does."""
    _ending.acquire()
    if sentence:
        _say(sentence)
    sys.stdout.flush()
    state = distributed.global_state
    if state.client is not None:
        told = threading.Thread(target=_tell, args=(f"{_LEFT}{status}",), daemon=True)
        told.start()
        told.join(2)  # longer only if the service is lost
    if state.process_id == 0:
        time.sleep(2 * _BEAT_S)  # with it goes the service, and before that all should know why
    os._exit(status)


def _tell(beat: str) -> None:
    state = distributed.global_state
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        state.client.key_value_set(f"{_BEATS}{state.process_id}", beat, allow_overwrite=True)
