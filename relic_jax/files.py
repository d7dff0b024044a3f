"""Files that are whole or not there: written under a temporary name, renamed when complete.

The temporary name says which process of which host writes it. What a process left that was killed, the next one to
write the same file clears away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

from relic_jax.errors import InputError

NAME_BYTES = 200  # of a file's name: systems allow 255, the temporary name is longer
_SUFFIX = ".partial"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path` to write to; becomes `path` when the block ends well, is removed when it doesn't.

    Raises:
      InputError: the folder isn't there or can't be written to, or the name is too long.
    """
    partial = temporary(path)
    try:
        partial.touch()
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from error
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def temporary(path: str | os.PathLike) -> Path:
    """The name beside `path` that this process writes to; what dead processes of this host left there is removed.

    Raises:
      InputError: the name is too long.
    """
    path = Path(path)
    check_name(path)
    host = f"{zlib.crc32(socket.gethostname().encode()):08x}"
    start = f".{path.name}.{host}."
    with contextlib.suppress(OSError):
        for left in path.parent.iterdir():
            process = left.name.removeprefix(start).removesuffix(_SUFFIX)
            if left.name == f"{start}{process}{_SUFFIX}" and process.isdecimal() and not _lives(int(process)):
                _remove(left)
    return path.with_name(f"{start}{os.getpid()}{_SUFFIX}")


@contextlib.contextmanager
def held(folder: str | os.PathLike) -> Iterator[None]:
    """A folder that one process works in: the lock ends with the process, however that ends.

    Raises:
      InputError: another process holds it; says which.
    """
    with (Path(folder) / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InputError(f"{folder} is in use by {owner}; wait for its end, or stop it") from None
        except OSError:  # a file system without locks: there is none to hold
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def check_name(path: Path) -> None:
    """Raises InputError where a file's name is longer than any system takes, or is none."""
    length = len(path.name.encode(errors="surrogateescape"))
    if length > NAME_BYTES:
        raise InputError(f"{path}: its name has {length} bytes; expected at most {NAME_BYTES}")
    if not length or "\0" in str(path):
        raise InputError(f"{str(path)!r} is no name of a file")


def same(one: str | os.PathLike, other: str | os.PathLike) -> bool:
    """Whether two names are one file, by symbolic or hard links too; a file needn't be there yet."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # somebody else's
    return True


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
