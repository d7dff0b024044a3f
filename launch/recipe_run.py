"""How a recipe runs: one program after the other, each told when its time is over, each noted in the ledger."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from launch import recipe_chain, recipe_report
from launch.recipe_chain import Recipe, Step
from launch.recipe_ledger import Ledger, Lock, Record, now, outdated, survey, unfinished
from relic_jax.errors import InputError

_STOPPED = 128 + signal.SIGTERM  # what a program exits with that has saved on SIGTERM


def plan(recipe: Recipe, ledger: Ledger, again: set[str], minutes: float | None) -> list[Step]:
    """The steps to run; the ledger forgets (in memory) those of `again` and those whose records no longer hold."""
    ledger.forget(again)
    ledger.forget(outdated(survey(recipe, ledger.records), ledger.records))
    return list(unfinished(recipe, survey(recipe, ledger.records), ledger.records, minutes))


class Signals:
    """While it is entered, Ctrl-C, SIGTERM and a closed terminal go to the program that runs; `first` is the first."""

    def __init__(self) -> None:
        self.first = 0
        self._child: subprocess.Popen | None = None

    def __enter__(self) -> Signals:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._pass_on) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def watch(self, child: subprocess.Popen) -> None:
        """From now on signals are this child's, one that came before included."""
        self._child = child
        if self.first:
            self._pass_on(self.first)

    def _pass_on(self, number: int, frame: object = None) -> None:
        self.first = self.first or number
        if self._child is not None:  # nothing happens where it has ended
            self._child.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a program ended: as `subprocess` says it; `cut`: it was stopped because its time was over."""

    returncode: int
    cut: bool
    wall_s: float
    cpu_s: float

    @property
    def code(self) -> int:
        """As a shell says it."""
        return self.returncode if self.returncode >= 0 else 128 - self.returncode


def execute(step: Step, limit_s: float | None, signals: Signals, lock: Lock) -> Ended:
    """Runs a step's program. It inherits the lock, and keeps it even if this process is killed."""
    begun, used, cut = time.monotonic(), _cpu_s(), False
    child = subprocess.Popen(
        [sys.executable, "-m", *step.arguments],
        stdin=subprocess.DEVNULL,
        process_group=0,  # a terminal's Ctrl-C would reach it twice, and the second one ends it without a checkpoint
        pass_fds=(lock.descriptor,),
    )
    lock.say(f"step {step.name} is running as process {child.pid}; wait for it, or stop it with: kill {child.pid}")
    signals.watch(child)
    try:
        child.wait(limit_s)
    except subprocess.TimeoutExpired:
        cut = True
        child.terminate()
        child.wait()
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGTERM)  # processes that it left behind
    return Ended(child.returncode, cut, time.monotonic() - begun, _cpu_s() - used)


class Run:
    """One run of a recipe: step after step, each noted in the ledger and in the report."""

    def __init__(
        self, source: str, recipe: Recipe, minutes: float | None, report: Path, lock: Lock, signals: Signals
    ) -> None:
        self._source, self._recipe, self._minutes, self._report = source, recipe, minutes, report
        self._lock, self._signals, self._ledger = lock, signals, Ledger(recipe.root)

    def all(self, again: set[str]) -> int:
        """Runs what is not finished, and the steps of `again` in any case; the exit code.

        Raises:
          InputError: something that the recipe declares as given isn't there.
        """
        before = survey(self._recipe, self._ledger.records)
        known = set(self._ledger.records)
        steps = plan(self._recipe, self._ledger, again, self._minutes)
        self._check_given(steps)
        self._ledger.write()
        for name in (name for name in before if name in known - set(self._ledger.records)):
            print(f"note: {name} runs again: {'asked for by --from' if name in again else before[name]}")
        self._say_what_stays([step for step in steps if step.name in known - set(self._ledger.records)])
        for folder in recipe_chain.folders(steps):
            os.makedirs(folder, exist_ok=True)
        code = 0
        for number, step in enumerate(steps):
            print(f"== {step.name} ({number + 1} of {len(steps)}): {shlex.join(['python', '-m', *step.arguments])}")
            sys.stdout.flush()
            code, sentence = self._step(step, steps[number:])
            self._write_report()
            if code:
                print(f"{'stopped' if self._signals.first else 'error'}: {sentence}", file=sys.stderr)
                break
        if not steps:
            self._write_report()
        if not code:
            self._say_how_it_stands()
        return code

    def _step(self, step: Step, left: Sequence[Step]) -> tuple[int, str]:
        """Runs a step and notes it; the exit code, if the chain ends here, and why.

        Args:
          left: the steps from this one on.
        """
        gone = [path for path in step.inputs if not Path(path).exists()]
        if gone:
            return 1, f"step {step.name} needs {gone[0]}, which isn't there, though the step that makes it is finished"
        limit_s = None
        if self._minutes and step.share:
            left_s = 60 * self._minutes - self._ledger.spent_s(self._recipe)
            limit_s = left_s * step.share / sum(one.share for one in left)
            if left_s <= 0:
                return 1, f"--minutes={self._minutes:g} are over before step {step.name}; give more of them"
        record = self._begun(step)
        self._ledger.note(step.name, record)
        ended = execute(step, limit_s, self._signals, self._lock)
        state, code, sentence = self._outcome(step, record, ended)
        times = {"wall_s": record.wall_s + ended.wall_s, "cpu_s": record.cpu_s + ended.cpu_s, "ended": now()}
        minutes = self._minutes if state == "cut" and not code and self._minutes else record.minutes
        self._ledger.note(step.name, dataclasses.replace(record, state=state, minutes=minutes, **times))
        if self._signals.first:
            return 128 + self._signals.first, f"in step {step.name}; to go on: {self._command()}"
        return code, sentence

    def _begun(self, step: Step) -> Record:
        """The record with which a step starts; one that was cut stays so, for its checkpoint is there."""
        old, records = self._ledger.records.get(step.name), self._ledger.records
        if old is not None:
            return dataclasses.replace(old, begun=now())
        made_of = {one.name: records[one.name].begun for one in self._recipe.before(step)}
        return Record(step.command, "started", now(), made_of=made_of)

    def _outcome(self, step: Step, record: Record, ended: Ended) -> tuple[str, int, str]:
        """What a step is now (done, cut, or what it was), the exit code and why the chain ends here, if it does."""
        gone = [path for path in step.outputs if not Path(path).exists()]
        if ended.returncode == 0 and not gone:
            return "done", 0, ""
        if ended.returncode == 0:
            return record.state, 1, f"step {step.name} ended well without {gone[0]}; the recipe names other outputs"
        if ended.cut and ended.code == _STOPPED:
            if not gone and (ended.returncode == _STOPPED or _saved_before(step)):
                return "cut", 0, ""
            spent = recipe_report.duration(ended.wall_s)
            return record.state, 1, f"{spent} were too short for step {step.name} to save anything; give more --minutes"
        sentence = (
            f"step {step.name} ended with exit code {ended.code}; once it is put right, go on with: {self._command()}"
        )
        there = [path for path in step.outputs if Path(path).exists()]
        if ended.code == 2 and there:
            sentence += f" (if it refuses what another configuration made, first: {shlex.join(['rm', '-r', *there])})"
        return record.state, ended.code, sentence

    def _command(self) -> str:
        """What goes on; without --from, which would begin there again."""
        minutes = [f"--minutes={self._minutes:g}"] if self._minutes else []
        default = Path(self._recipe.root) / "recipe_report"
        report = [f"--report={self._report}"] if self._report != default else []
        return shlex.join(["python", "-m", "launch.recipe", self._source, *minutes, *report])

    def _check_given(self, steps: Sequence[Step]) -> None:
        made = {output for step in self._recipe.steps for output in step.outputs}
        for step in steps:
            for path in step.inputs:
                if not any(recipe_chain.holds(output, path) for output in made) and not Path(path).exists():
                    raise InputError(f"step {step.name} needs {path}, which the recipe takes as given; it isn't there")

    def _say_what_stays(self, steps: Sequence[Step]) -> None:
        there = [path for step in steps for path in step.outputs if Path(path).exists()]
        if there:
            anew = shlex.join(["rm", "-r", *there])
            print(f"note: programs keep what they find finished; to make all of it anew, stop this and first: {anew}")

    def _say_how_it_stands(self) -> None:
        found = survey(self._recipe, self._ledger.records)
        for name, status in found.items():
            if status.behind or status.word == "cut":
                print(f"note: {name} is {status}")
        cut = any(status.word == "cut" for status in found.values())
        print(f"{self._source}: {'as far as the minutes went' if cut else 'all done'}; {self._report / 'report.md'}")

    def _write_report(self) -> None:
        recipe_report.write(self._report, self._source, self._recipe, self._ledger.records)


def _saved_before(step: Step) -> bool:
    """Whether a program that was killed before it could save has a checkpoint of an earlier run."""
    return bool(step.workdir) and any(p.name.isdigit() for p in (Path(step.workdir) / "checkpoints").glob("*"))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
