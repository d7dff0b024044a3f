"""Programs run as a person runs them, with the same environment, folder and files for what they say.

`start` is `python -m NAME ARGUMENTS`. Half of the time of most of these runs would go to imports, so `Forks` pays for
them once: one process imports what the programs share, and each run is a fork of it that does all the rest anew.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# LLVM needn't try hard: most of such a run is compilation.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

_SERVER = """
import importlib, json, os, runpy, sys, traceback

answers = os.fdopen(os.dup(1), "w")
requests = os.fdopen(os.dup(0))
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for name in sys.argv[1:]:
    importlib.import_module(name)


def code_of(name, arguments):
    sys.argv[1:] = arguments
    try:
        if name.endswith(".py"):
            runpy.run_path(name, run_name="__main__")
        else:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


for line in requests:
    name, arguments, out, err = json.loads(line)
    child = os.fork()
    if not child:
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY), descriptor)
        code = code_of(name, arguments)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Done:
    """What `subprocess.run` would say."""

    returncode: int
    stdout: str
    stderr: str


def start(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a module as a program, in a process of its own."""
    command = [sys.executable, "-m", name, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT | environment, capture_output=True, text=True)


def begin(name: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """As `start`, and doesn't wait for its end."""
    command = [sys.executable, "-m", name, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | ENVIRONMENT | environment, **pipes)


class Forks:
    """Runs modules and files (`*.py`) as programs in forks of one process, which has imported the modules `imported`.

    These must start no threads and no devices when they are imported.
    """

    def __init__(self, *imported: str):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVER, *imported],  # JAX warns of every fork
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, name: str | os.PathLike[str], *arguments: object) -> Done:
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
            request = [str(name), [str(argument) for argument in arguments], out.name, err.name]
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "the process that imports ended"
            return Done(int(answer), out.read(), err.read())

    def close(self) -> None:
        self._process.stdin.close()
        assert self._process.wait(60) == 0
