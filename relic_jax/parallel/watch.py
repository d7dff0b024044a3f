"""Notices when a process of a multi-host run is lost, hangs or fails, and ends this one with a line that says so.

A lost peer would leave the others waiting in a collective for ever, or ended by JAX with a stack trace. So each process
beats through the key-value store of JAX's coordination service, which runs in process 0, and listens to the others.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import tqdm
from jax._src import distributed  # its client is the one way to talk to the others without a collective

LOST = 75  # exit status (EX_TEMPFAIL): the same command, started again, goes on from the last checkpoint

_BEAT_S = 3
SILENT_S = 35  # without a beat of a process until it counts as lost
_STEP_S = 60  # the least time that a step may take
_BEATS = "relic_beats/"
_LEFT = "left "  # and a status: the last beat of a process that ends before the others
_DONE = "done"  # the last beat of one that has come to its end

_handlers: list[Any] = []
_done = threading.Event()
_ending = threading.Lock()  # taken for ever by the thread that ends this process


def alone() -> bool:
    """Whether this is the only process; `jax.process_count()` would look for devices."""
    return distributed.global_state.num_processes == 1


class Watchdog:
    """Ends the process, with a line on stderr, when a step takes longer than `seconds` and than ten of the longest.

    A collective whose peer hangs waits for ever; nothing in Python can interrupt it. A context manager.
    """

    def __init__(self, seconds: float = _STEP_S, end: Callable[[int, str], Any] | None = None) -> None:
        self._seconds, self._end = seconds, end or leave
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


def start(count: int) -> None:
    """From here on until the program's end, ends this process when another of `count` has not beaten for too long."""
    beats: dict[str, Any] = {"all": {}, "when": time.monotonic()}
    threads = [threading.Thread(target=f, args=(count, beats), daemon=True) for f in (_listen, _beat)]
    for thread in threads:
        thread.start()
    atexit.register(_stop, threads)


def _stop(threads: Sequence[threading.Thread]) -> None:
    """Before JAX's own shutdown: a thread, or a handler, that is in JAX while that goes would crash the process."""
    _done.set()
    for thread in threads:
        thread.join(2 * _BEAT_S)
    _tell(_DONE)
    ctypes.CDLL(None).signal(signal.SIGABRT, None)  # SIG_DFL


def _listen(count: int, beats: dict[str, Any]) -> None:
    now = time.monotonic()
    heard = {index: ("", now) for index in range(count)}
    while not _done.wait(1):
        now = time.monotonic()
        if now - beats["when"] > SILENT_S:  # the service does not answer: nobody can be heard
            leave(LOST, _lost(f"process 0 has not been heard of for {SILENT_S} s and is lost"))
        _follow(beats["all"])
        for index, (beat, when) in heard.items():
            newest = beats["all"].get(f"{_BEATS}{index}", "")
            heard[index] = (newest, now) if newest != beat or newest == _DONE else (beat, when)
            if now - when > SILENT_S and newest == beat:
                leave(LOST, _lost(f"process {index} has not been heard of for {SILENT_S} s and is lost"))


def _beat(count: int, beats: dict[str, Any]) -> None:
    """Beats, and notes the others' beats and when; a call waits for as long as the service is silent."""
    client = distributed.global_state.client
    while not _done.is_set():
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            if not _ending.locked():
                _tell(str(time.monotonic()))
            beats["all"] = dict(client.key_value_dir_get(_BEATS))
            beats["when"] = time.monotonic()
        _done.wait(_BEAT_S)


def _follow(beats: Mapping[str, str]) -> None:
    """Ends as a process did that said so: an error of one must not look like a loss, which is worth a new start."""
    left = {key.rsplit("/", 1)[1]: int(beat[len(_LEFT) :]) for key, beat in beats.items() if beat.startswith(_LEFT)}
    left.pop(str(distributed.global_state.process_id), None)
    for index, status in left.items():
        if status == LOST:
            leave(LOST, _lost(f"process {index} has lost another process and ended"))
        state = distributed.global_state
        leave(status, f"process {state.process_id} of {state.num_processes}: process {index} failed, and says why")


def watch_coordinator(answers: Callable[[], bool]) -> None:
    """Gives a meaning to the abort with which JAX ends a process as soon as process 0 is gone."""

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(number: int) -> None:
        if not answers():
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
        if alone() or str(error).startswith(("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")):
            raise
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _follow(dict(distributed.global_state.client.key_value_dir_get(_BEATS)))
        leave(LOST, _lost(f"another process was lost ({str(error).splitlines()[0][:200]})"))


@contextlib.contextmanager
def failing_ends() -> Iterator[None]:
    """Around a whole program: a process that fails ends at once, instead of waiting for the others to end with it."""
    try:
        yield
    except SystemExit as stopped:
        if jax.distributed.is_initialized() and stopped.code in (1, 2, LOST):
            leave(stopped.code)
        raise
    except BaseException:
        if jax.distributed.is_initialized():
            traceback.print_exc()
            leave(1)
        raise


def _say(sentence: str) -> None:
    tqdm.tqdm.write(f"error: {sentence}", file=sys.stderr)  # on a line of its own, not behind a progress bar
    sys.stderr.flush()


def leave(status: int, sentence: str = "") -> None:
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
    if state.client is not None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            state.client.key_value_set(f"{_BEATS}{state.process_id}", beat, allow_overwrite=True)
