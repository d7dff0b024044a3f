"""What every launch program shares: flags, the configuration, one-sentence errors, writing results.

Bad input is said in one sentence on stderr and exits with code 2; Ctrl-C exits with code 130.
"""

from __future__ import annotations

import contextlib
import json
import logging as stdlib_logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from relic_jax import files
from relic_jax.config import ConfigError, from_config_dict
from relic_jax.errors import InputError

# What a driver of NVIDIA's leaves, in Linux and in Windows' Linux.
_GPU_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Parses the flags, calls `main(argv)` and exits with what it returns (0 for None)."""
    quiet_plugins()

    def parse(argv: list[str]) -> list[str]:
        with _said_once():
            rest = flags.FLAGS(argv)
        if flags.FLAGS["verbosity"].using_default_value:  # app.run would raise it to INFO, and Orbax talks a lot
            logging.set_verbosity(logging.WARNING)
        return rest

    def checked(argv: Sequence[str]) -> int | None:
        with _said_once():
            if len(argv) > 1:
                raise InputError(f"{argv[1]!r} is no flag; flags look like --name=value")
            return main(argv)

    app.run(checked, flags_parser=parse)


def run_commands(
    commands: Mapping[str, Callable[[Sequence[str]], int | None]], configured: Mapping[str, str] | None = None
) -> None:
    """As `run`, for a program whose first argument names what it does.

    Args:
      commands: a function each. configured: those that take --config, with their default file; reading it costs, so
        the others don't.
    """
    named = len(sys.argv) > 1 and sys.argv[1] in commands
    if not named and not {"--help", "--helpfull", "--helpshort"} & set(sys.argv):
        print(f"error: expected one of {', '.join(commands)} after the program's name", file=sys.stderr)
        sys.exit(2)
    command = sys.argv.pop(1) if named else next(iter(commands))
    if configured and command in configured:
        config_flag(configured[command])
    run(commands[command])


def needed(flag: flags.FlagHolder[str | None]) -> str:
    """The value of a flag that this command can't do without.

    Raises:
      InputError: it isn't given.
    """
    if not flag.value:
        raise InputError(f"--{flag.name} is needed")
    return flag.value


def config_flag(default: str) -> None:
    """Defines --config=FILE, whose fields --config.a.b=value overrides; `load_config` reads it."""
    with _said_once():  # absl reads the default file here when the command line has no --config
        config_flags.DEFINE_config_file("config", default, "file whose get_config() describes the run")


def load_config[T](cls: type[T]) -> T:
    """The --config flag as the dataclass `cls`.

    Raises:
      ConfigError: there is no such file, or a field is wrong.
    """
    try:
        return from_config_dict(cls, flags.FLAGS.config)
    except OSError as error:
        raise ConfigError(_sentence(error)) from error
    except TypeError as error:  # a field without default is missing: the file describes something else
        path = flags.FLAGS["config"].config_filename
        raise ConfigError(f"{path} doesn't describe a {cls.__name__}: {error}") from error


def write_json(path: str, values: Mapping[str, bool | int | float | str]) -> None:
    """Writes a flat object, under a temporary name that is renamed when it is complete.

    Raises:
      InputError: the file can't be written.
    """
    check_writable(path)
    with files.replacing(path) as partial:
        partial.write_text(json.dumps(dict(values), indent=1) + "\n")


def pyplot() -> Any:
    """matplotlib's, for pictures in files. Also called before long work begins, to know that it is there.

    Raises:
      InputError: it isn't installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("a plot needs matplotlib: install relic-jax[eval]") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def check_writable(path: str) -> None:
    """Tries, before long work begins, whether a file can be written at `path`; leaves no trace.

    Raises:
      InputError: the folder doesn't exist or can't be written to, or the path is a folder, a device or a pipe, or too
        long.
    """
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file to write")
    files.check_name(Path(path))
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path} is a device or a pipe; expected the name of a file to write")
    _try_writing(Path(path).parent)


def check_outputs(
    outputs: Mapping[str, str | None],
    inputs: Mapping[str, str | None],
    suffixes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """What a command writes can be written, and is none of its other files: before anything is read or loaded.

    Args:
      outputs, inputs: files and folders by flag; None or empty where a flag isn't given. The --config file is an input
        of every command. Of a folder the files directly in it count too.
      suffixes: what a name may end in, by flag.

    Raises:
      InputError: names the flag, and the other one where two are the same file.
    """
    written = {name: path for name, path in outputs.items() if path}
    read = [(name, path) for name, path in inputs.items() if path]
    if "config" in flags.FLAGS:
        read.append(("config", flags.FLAGS["config"].config_filename.split(":")[0]))
    read += [(name, str(file)) for name, path in read if Path(path).is_dir() for file in Path(path).iterdir()]
    for name, path in written.items():
        wanted = (suffixes or {}).get(name, ())
        if wanted and not path.lower().endswith(tuple(wanted)):
            raise InputError(f"--{name}={path}: expected a name that ends in {' or '.join(wanted)}")
        check_writable(path)
        others = [*((other, of) for other, of in written.items() if other != name), *read]
        twin = next((other for other, of in others if files.same(path, of)), None)
        if twin:
            raise InputError(f"--{name}={path} is the file of --{twin} too; expected another name, nothing is lost")


def writable_directory(path: str) -> Path:
    """The folder, made if it isn't there.

    Raises:
      InputError: it can't be made or written to.
    """
    if not path:
        raise InputError("an output folder is needed; its name came empty")
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the output folder {path} can't be made: {error.strerror}") from error
    _try_writing(Path(path))
    return Path(path)


def _try_writing(folder: Path) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"the folder {folder} can't be written to: {error.strerror}") from error


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)


def _sentence(error: Exception) -> str | None:
    """What to tell the person about bad input; None for an error of the program."""
    if isinstance(error, ConfigError | InputError):
        return str(error)
    if no_platform(error):
        return no_platform(error)
    if _in_config(error):
        return _in_config(error)
    if isinstance(error, flags.Error):
        root = _root(error)
        if isinstance(root, ConfigError):
            return str(root)
        if "Error whilst parsing config file" in str(error):
            return f"the config file can't be used: {type(root).__name__}: {root}"
        return str(error).split("\n")[0]
    if isinstance(error, KeyError | AttributeError):
        return _no_such_field(str(error))
    if isinstance(error, OSError) and "Configuration is not available" in str(error):
        return f"the config file can't be read: {str(error).splitlines()[-1].strip()}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def first_line(error: BaseException) -> str:
    """The first line of what an error says; empty where it says nothing."""
    return (str(error).strip().splitlines() or [""])[0]


def no_platform(error: BaseException) -> str | None:
    """What to tell a person whose JAX can't start; None for any other error.

    JAX raises an AssertionError without words where the platform that JAX_PLATFORMS names has no device, and a
    RuntimeError where there is no such platform, and hides where they come from. So it is asked again.
    """
    if not isinstance(error, RuntimeError | AssertionError) or "jax" not in sys.modules:
        return None
    try:
        sys.modules["jax"].devices()
        return None
    except (RuntimeError, AssertionError) as cause:
        error = cause
    asked = os.environ.get("JAX_PLATFORMS") or os.environ.get("JAX_PLATFORM_NAME")
    wanted = f"what JAX_PLATFORMS={asked} asks for" if asked else "any platform"
    why = first_line(error) or "it has no device here"
    return f"JAX can't start {wanted}: {why}; unset it, or set JAX_PLATFORMS=cpu to run on the CPU"


def quiet_plugins() -> None:
    """On a machine without a GPU JAX's CUDA plugin has nothing to say; without this, it says so in nine lines."""
    if not any(Path(sign).exists() for sign in _GPU_SIGNS):
        bridge = stdlib_logging.getLogger("jax._src.xla_bridge")
        bridge.addFilter(lambda record: not str(record.msg).startswith("Jax plugin configuration error"))


def _in_config(error: BaseException) -> str | None:
    """What is wrong in the --config file, with its line; None where the error came from elsewhere."""
    root = _root(error)
    named = [argument.split("=", 1)[1].split(":")[0] for argument in sys.argv if argument.startswith("--config=")]
    names = {os.path.realpath(name) for name in named}
    if isinstance(root, ConfigError | InputError) or not names:
        return None
    if isinstance(root, SyntaxError) and os.path.realpath(root.filename or "") in names:
        return f"{root.filename}, line {root.lineno}: {type(root).__name__}: {root.msg}"
    if isinstance(root, AttributeError) and "get_config" in str(root):
        return f"{named[-1]} has no get_config(), the function that gives the configuration"
    lines = [f for f in traceback.extract_tb(root.__traceback__) if os.path.realpath(f.filename) in names]
    return f"{lines[-1].filename}, line {lines[-1].lineno}: {type(root).__name__}: {root}" if lines else None


def _root(error: BaseException) -> BaseException:
    while error.__context__ is not None:
        error = error.__context__
    return error


def _no_such_field(message: str) -> str | None:
    """ml_collections says which part of an override it did not find, but not which override."""
    message = message.replace("\\", "")  # it is the representation of a representation
    found = re.search(r"'(\w+)'", message)
    for argument in sys.argv[1:]:
        name = argument.split("=")[0].lstrip("-")
        if found and name.startswith(("config.", "noconfig.")) and found[1] in name.split("."):
            hint = re.search(r'Did you mean "?(\w+)"?', message)
            return f"--{name}: the config has no field {found[1]!r}" + (f"; did you mean {hint[1]!r}?" if hint else "")
    return None
