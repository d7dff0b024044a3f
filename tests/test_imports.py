"""Imports go one way: the contract of pyproject.toml holds, and every module is in it."""

import pkgutil
import re
import tomllib
from pathlib import Path

from importlinter import cli

import relic_jax

ROOT = Path(__file__).parents[1]


def layers() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    return {module.strip(" ()") for layer in contract["layers"] for module in layer.split(":")}


def test_contract_holds(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(config_filename="pyproject.toml", no_cache=True) == cli.EXIT_STATUS_SUCCESS


def test_every_module_is_in_the_contract():
    assert {f"relic_jax.{module.name}" for module in pkgutil.iter_modules(relic_jax.__path__)} <= layers()


def test_every_extra_that_the_makefile_pins_exists():
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    pinned = re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(pinned[1].split()) == extras - {"cuda12", "cuda13"}


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for e in project["optional-dependencies"].values() for d in e)]
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    names = {re.match(r"[\w.-]+", dependency)[0].lower().replace("_", "-") for dependency in wanted}
    assert names <= pinned
