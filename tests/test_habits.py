"""What all files keep to: style, types, the direction of imports, pinned versions. `make lint` runs the same checks."""

import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import relic_jax

ROOT = Path(__file__).parents[1]
CHECKS = {
    "ruff check": ("-m", "ruff", "check", "--no-cache", "."),
    "ruff format": ("-m", "ruff", "format", "--check", "--no-cache", "."),
    "import-linter": ("-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"),
    "pyright": ("-m", "pyright", "--pythonpath", sys.executable),
}


@pytest.mark.parametrize("check", CHECKS)
def test_check_passes(check):
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # it asks the network for a newer version
    result = subprocess.run([sys.executable, *CHECKS[check]], capture_output=True, text=True, cwd=ROOT, env=environment)
    if result.returncode:
        pytest.fail(f"{check} says:\n{result.stdout}{result.stderr}", pytrace=False)


def layers() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    return {module.strip(" ()") for layer in contract["layers"] for module in layer.split(":")}


def test_the_architecture_page_draws_the_contract():
    """Its lines from top to bottom are the contract's."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawing = page.split("## The layers")[1].split("```")[1]
    drawn = [re.split(r"\s{3,}", line.strip())[:-1] for line in drawing.splitlines() if re.search(r"[a-z]", line)]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    wanted = [[m.strip(" ()").removeprefix("relic_jax.") for m in layer.split(":")] for layer in contract["layers"]]
    assert [[name.strip("()") for name in line] for line in drawn] == wanted


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
