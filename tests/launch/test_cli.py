import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import cli
from relic_jax.errors import InputError
from tests.programs import Done

PROGRAM = """
import sys
from launch import cli
from relic_jax.config import RelicConfig
from relic_jax.errors import InputError
cli.config_flag("configs/tiny.py")
def main(argv):
    cfg = cli.load_config(RelicConfig)
    if cfg.name == "interrupt":
        raise KeyboardInterrupt
    if cfg.name == "input":
        raise InputError("picture.png does not exist")
    if cfg.name == "file":
        open("/no/such/file")
    if cfg.name == "bug":
        raise RuntimeError("a bug")
    if cfg.name == "seven":
        return 7
    print(cfg.memory.mode, cfg.stream.timesteps)
cli.run(main)
"""
BROKEN = {
    "syntax.py": "import ml_collections\ndef get_config(:\n    return 1",
    "name.py": "import ml_collections\n\ndef get_config():\n    return unknown_name",
    "import.py": "import no_such_module",
    "empty.py": "VALUE = 1",
    "value.py": "from relic_jax.config import *\nget_config = lambda: to_config_dict(MemoryConfig(mode='x'))",
    "field.py": "import ml_collections\nget_config = lambda: ml_collections.ConfigDict({'dit': {'width': 3}})",
    "type.py": "import ml_collections\nget_config = lambda: ml_collections.ConfigDict({'dit': {'dim': 'wide'}})",
    "call.py": "from relic_jax.config import *\nget_config = lambda: to_config_dict(MemoryConfig(size=3))",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    for name, text in BROKEN.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def start(fork, tmp_path_factory) -> Callable[..., Done]:
    program = tmp_path_factory.mktemp("program") / "program.py"
    program.write_text(PROGRAM)
    return functools.partial(fork, str(program))


def test_overrides(start):
    done = start("--config=configs/tiny.py", "--config.memory.mode=window", "--config.stream.timesteps=(900.0, 100.0)")
    assert (done.returncode, done.stdout) == (0, "window (900.0, 100.0)\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.no.such=1"], "--config.no.such: the config has no field 'no'"),
        (["--config.memory.size=1"], "--config.memory.size: the config has no field 'size'"),
        (
            ["--config=configs/tiny.py", "--config.dit.layer=1"],
            "the config has no field 'layer'; did you mean 'layers'?",
        ),
        (["--config.dit.dim=wide"], "--config.dit.dim=wide: invalid literal"),
        (["--config.memory.mode=x"], "memory.mode='x' is not one of relic, window, full"),
        (["--config=configs/none.py"], "configs/none.py"),
        (["--config=configs/none.py", "--config.dit.dim=1"], "configs/none.py"),
        (["--nosuch=1"], "Unknown command line flag 'nosuch'"),
        (["stray"], "'stray' is no flag; flags look like --name=value"),
        (["--config=syntax.py"], "syntax.py, line 2: SyntaxError: invalid syntax"),
        (["--config=name.py"], "name.py, line 4: NameError: name 'unknown_name' is not defined"),
        (["--config=import.py"], "import.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        (["--config=empty.py"], "empty.py has no get_config(), the function that gives the configuration"),
        (["--config.dit.heads=0"], "dit.heads=0 must lie between 1 and 1048576"),
        (["--config.vae.base_dim=99999999999"], "vae.base_dim=99999999999 must lie between 1 and 1048576"),
        (["--config.stream.translation_unit=nan"], "stream.translation_unit=nan must be above 0"),
        (["--config=value.py"], "memory.mode='x' is not one of"),
        (["--config=field.py"], "config.dit.width does not exist; config.dit has"),
        (["--config=type.py"], "config.dit.dim='wide' must be of type int"),
        (["--config=call.py"], "unexpected keyword argument 'size'"),
        (["--config.name=input"], "picture.png does not exist"),
        (["--config.name=file"], "/no/such/file: No such file or directory"),
    ],
)
def test_bad_input_is_one_sentence(start, broken, arguments, sentence):
    arguments = [a.replace("--config=", f"--config={broken}/") if a.split("=")[-1] in BROKEN else a for a in arguments]
    done = start(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert sentence in done.stderr


def test_interruption_and_exit_codes(start):
    done = start("--config.name=interrupt")
    assert (done.returncode, done.stderr) == (130, "")
    assert start("--config.name=seven").returncode == 7


def test_a_bug_keeps_its_traceback(start):
    done = start("--config.name=bug")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_write_json(tmp_path):
    cli.write_json(str(tmp_path / "a.json"), {"frames": 3, "wall_s": 0.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"frames": 3, "wall_s": 0.5}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_plots_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"a plot needs matplotlib: install relic-jax\[eval\]"):
        cli.pyplot()


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="is a folder; expected the name of a file"):
        cli.check_writable(str(tmp_path))
    with pytest.raises(InputError, match="can't be written to"):
        cli.write_json(str(tmp_path / "none" / "a.json"), {})
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="can't be made"):
            cli.writable_directory(str(path))
    with pytest.raises(InputError, match="can't be"):
        cli.writable_directory("/proc/none")
    with pytest.raises(InputError, match="its name came empty"):
        cli.writable_directory("")
    assert (tmp_path / "file").read_text() == "kept"
    assert cli.writable_directory(str(tmp_path / "a" / "b")).is_dir()
