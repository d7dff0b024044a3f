"""A folder in the making: under another name until it is complete, one writer at a time, taken up again later."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relic_jax.errors import InputError

_JOURNAL = "journal.txt"
_KEY = "conversion.json"


class Partial:
    """The unfinished folder; `done` are the steps that an interrupted run left complete."""

    def __init__(self, folder: Path):
        self.folder = folder
        journal = folder / _JOURNAL
        # A line without its end is of a step that was cut off.
        self.done = {line.rstrip("\n") for line in journal.open() if line.endswith("\n")} if journal.exists() else set()
        self._journal = journal.open("a")

    def record(self, step: str) -> None:
        """Notes that a step is complete and on disk."""
        self._journal.write(f"{step}\n")
        self._journal.flush()

    def close(self) -> None:
        self._journal.close()


@contextlib.contextmanager
def partial(destination: Path, key: dict[str, Any], needed: int) -> Iterator[Partial]:
    """Makes `destination` appear when the block ends well.

    After an interruption or a full disk what is written stays in `.NAME.partial`, and a later run with the
    same key goes on with it; after bad input it is removed.

    Args:
      destination: a folder that doesn't exist.
      key: what is converted and how, in types of JSON; a leftover with another key is begun anew.
      needed: bytes that will be written.

    Raises:
      InputError: the destination exists, can't be written to, or is being written.
    """
    check_destination(destination)
    folder = destination.with_name(f".{destination.name}.partial")
    lock = destination.with_name(f".{destination.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise InputError(f"{destination} is being written by another conversion") from error
    try:
        _prepare(folder, key)
        _check_space(folder, needed)
        work = Partial(folder)
        try:
            yield work
        except NoSpaceError:
            raise
        except InputError:
            shutil.rmtree(folder)
            raise
        except OSError as error:
            raise NoSpaceError(f"{folder} can't be written: {error.strerror}") from error
        finally:
            work.close()
        for name in (_JOURNAL, _KEY):
            (folder / name).unlink()
        check_destination(destination)
        folder.rename(destination)
    finally:
        Path(lock.name).unlink()
        lock.close()


class NoSpaceError(InputError):
    """The result can't be written: what there is of it stays, for the next run."""


def check_destination(destination: Path) -> None:
    """Says early what would stop a conversion late; makes the folder that the destination is to be in.

    Raises:
      InputError: the destination exists, or can't be made.
    """
    if destination.exists():
        raise InputError(f"{destination} exists already; expected a new folder, nothing is overwritten")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=destination.parent):
            pass
    except OSError as error:
        raise InputError(f"the folder {destination.parent} can't be made or written to: {error.strerror}") from error


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _prepare(folder: Path, key: dict[str, Any]) -> None:
    stored = folder / _KEY
    try:
        same = json.loads(stored.read_text()) == key
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir()
            stored.write_text(json.dumps(key))
        except OSError as error:
            raise NoSpaceError(f"{folder} can't be written: {error.strerror}") from error


def _check_space(folder: Path, needed: int) -> None:
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(folder).free
    if free < needed - written:
        raise NoSpaceError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, the result needs {(needed - written) / 1e9:.1f} GB"
        )
