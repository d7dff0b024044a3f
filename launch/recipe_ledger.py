"""What of a recipe is finished: the ledger that its runs keep, and what follows from it.

root/recipe.json holds a record of each step that was started. A step is finished when its program ended well, with
this very command, and its outputs are there; what a step trains it keeps in its own checkpoints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from launch.recipe_chain import Recipe, Step
from relic_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Record:
    """How a step last ran.

    Fields:
      command: as in `Step`.
      state: started (and not finished), cut (its share of --minutes was used up), done.
      begun: when it last started; what it means for others is only that it changes.
      wall_s, cpu_s: seconds, of all its runs together.
      minutes: of the run that cut it.
      made_of: of the steps that make its inputs, the `begun` that held when it first started.
    """

    command: tuple[str, ...]
    state: str
    begun: str
    ended: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    minutes: float = 0.0
    made_of: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Status:
    """What a record means now: done, cut, started, missing, changed (another command) or stale (an input is).

    `behind`: steps that went on after this one was made of them; it stays until it is asked for anew.
    """

    word: str
    note: str = ""
    behind: frozenset[str] = frozenset()

    def __str__(self) -> str:
        behind = f"made before {', '.join(sorted(self.behind))} went on" if self.behind else ""
        note = "; ".join(filter(None, (self.note, behind)))
        return f"{self.word} ({note})" if note else self.word


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


class Ledger:
    """The records of one recipe, kept in a file.

    Raises:
      InputError: the file can't be read.
    """

    def __init__(self, root: str) -> None:
        self.path = Path(root) / "recipe.json"
        self.records: dict[str, Record] = {}
        try:
            if self.path.exists():
                stored = json.loads(self.path.read_text())
                self.records = {
                    name: Record(**{**of, "command": tuple(of["command"])}) for name, of in stored["steps"].items()
                }
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{self.path} can't be read ({error}); remove it, and every step is started again, which costs little "
                "where its program finds its work done"
            ) from error

    def note(self, name: str, record: Record) -> None:
        """Writes a step's record."""
        self.records[name] = record
        self.write()

    def forget(self, names: set[str]) -> None:
        """Leaves out these steps' records, in memory until something is written. Their outputs stay."""
        self.records = {name: record for name, record in self.records.items() if name not in names}

    def spent_s(self, recipe: Recipe) -> float:
        """Seconds that the recipe's steps have taken so far."""
        return sum(self.records[step.name].wall_s for step in recipe.steps if step.name in self.records)

    def write(self) -> None:
        """The records as they are, under a temporary name that is renamed when it is complete."""
        temporary = self.path.with_suffix(".tmp")
        values = {name: dataclasses.asdict(record) for name, record in self.records.items()}
        temporary.write_text(json.dumps({"steps": values}, indent=1) + "\n")
        temporary.replace(self.path)


class Lock:
    """Held by one run of a recipe and by the step that it runs, which may outlive it: never two in one workdir."""

    def __init__(self, root: str) -> None:
        self._path = Path(root) / "recipe.lock"
        self.descriptor = -1

    def __enter__(self) -> Lock:
        """Takes it.

        Raises:
          InputError: another run has it.
        """
        self.descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self.descriptor)
            raise InputError(f"another run of this recipe has not ended: {self._path.read_text().strip()}") from error
        self.say(f"process {os.getpid()} runs it")
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.descriptor)

    def say(self, text: str) -> None:
        """What whoever comes too early is told."""
        with contextlib.suppress(OSError):
            self._path.write_text(text + "\n")


def survey(recipe: Recipe, records: Mapping[str, Record]) -> dict[str, Status]:
    """Where each step stands."""
    found: dict[str, Status] = {}
    for step in recipe.steps:
        found[step.name] = _status(step, recipe.before(step), records, found)
    return found


def unfinished(
    recipe: Recipe, found: Mapping[str, Status], records: Mapping[str, Record], minutes: float | None
) -> Iterator[Step]:
    """The steps that are to run: with `minutes`, of those that were cut the ones that had fewer."""
    for step in recipe.steps:
        cut = found[step.name].word == "cut"
        if found[step.name].word != "done" and not (cut and minutes and minutes <= records[step.name].minutes):
            yield step


def outdated(found: Mapping[str, Status], records: Mapping[str, Record]) -> set[str]:
    """The steps whose records no longer hold."""
    return {
        name for name, status in found.items() if name in records and status.word in ("missing", "changed", "stale")
    }


def _status(step: Step, before: list[Step], records: Mapping[str, Record], found: Mapping[str, Status]) -> Status:
    record = records.get(step.name)
    if record is None:
        return Status("missing")
    if record.command != step.command:
        return Status("changed", "it ran with another command")
    behind = {
        one.name for one in before if one.name in records and records[one.name].begun != record.made_of.get(one.name)
    }
    behind = frozenset(behind.union(*(found[one.name].behind for one in before)))
    for path in step.outputs:
        if record.state != "started" and not Path(path).exists():
            return Status("missing", f"{path} is gone")
    for one in before:
        if found[one.name].word not in ("done", "cut"):
            return Status("stale", f"{one.name} is to run first")
    return Status(record.state, behind=behind)
