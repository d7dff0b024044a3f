"""A training recipe as data: the chain of commands from rendered clips to a measured model.

A recipe is a Python file with `get_recipe() -> Recipe`. What can be wrong with a chain is said when it is loaded, in
one sentence, before hours of work: an input that nothing makes, two steps that write the same thing. This file also
prints a chain, as plain commands or as Slurm jobs; `launch.recipe` runs it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from relic_jax.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Step:
    """One command of a chain. Paths are relative to the folder where the recipe is started.

    Fields:
      name: letters, digits and underscores; the step's name in `--from`, in the report and among Slurm's jobs.
      command: what follows `python -m`.
      inputs: files and folders that earlier steps make or the recipe declares as given.
      outputs: files and folders that are there when the step is finished.
      share: weight of the step's part of `--minutes`; above 0 only for a program that saves and exits with 143 on
        SIGTERM, as `launch.train` does. 0: it runs to the end.
      steps: training steps of a whole run; 0: what the run's own config.json says, once there is one.
      json: file of the step's figures, given to it as --json.
    """

    name: str
    command: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    share: float = 0.0
    steps: int = 0
    json: str = ""

    def __post_init__(self) -> None:
        _require(re.fullmatch(r"\w+", self.name, re.ASCII), f"step {self.name!r}: a name has letters, digits, _ only")
        for field in ("command", "inputs", "outputs"):
            value = getattr(self, field)
            _require(
                isinstance(value, tuple) and all(isinstance(part, str) and part for part in value),
                f"step {self.name}: {field}={value!r} must be a tuple of strings",
            )
        _require(self.command, f"step {self.name} has no command")
        for field in ("share", "steps"):
            value = getattr(self, field)
            _require(value >= 0, f"step {self.name}: {field}={value} must not be negative")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The whole command line after `python -m`."""
        return (*self.command, f"--json={self.json}") if self.json else self.command

    @property
    def workdir(self) -> str:
        """The folder of a training run; empty for a step that trains nothing."""
        return next((part.partition("=")[2] for part in self.command if part.startswith("--workdir=")), "")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A chain: steps in the order in which they run.

    Fields:
      given: files and folders that whoever starts it must bring.
      root: folder of the ledger (recipe.json) and of the report.
    """

    steps: tuple[Step, ...]
    given: tuple[str, ...] = ()
    root: str = "runs"

    def __post_init__(self) -> None:
        _require(self.steps, "the recipe has no steps")
        names: set[str] = set()
        makers: dict[str, str] = {}
        for step in self.steps:
            _require(step.name not in names, f"two steps are called {step.name}")
            names.add(step.name)
            for path in step.inputs:
                _require(
                    any(holds(known, path) for known in (*self.given, *makers)),
                    f"step {step.name} needs {path}, which no earlier step makes and the recipe doesn't list as given",
                )
            for path in map(os.path.normpath, step.outputs):
                _require(path not in makers, f"steps {makers.get(path)} and {step.name} both make {path}")
                makers[path] = step.name

    def before(self, step: Step) -> list[Step]:
        """The steps that make its inputs."""
        earlier = self.steps[: self.steps.index(step)]
        return [one for one in earlier if any(holds(output, path) for output in one.outputs for path in step.inputs)]

    def after(self, name: str) -> set[str]:
        """A step and all that depends on it, however far.

        Raises:
          ConfigError: there is no such step.
        """
        names = [step.name for step in self.steps]
        _require(name in names, f"there is no step {name!r}; the recipe has {', '.join(names)}")
        found = {name}
        for step in self.steps:
            if any(one.name in found for one in self.before(step)):
                found.add(step.name)
        return found


def train(name: str, config: str, workdir: str, inputs: Iterable[str], *more: str, share: float = 0.0) -> Step:
    """A step of `launch.train`.

    Args:
      more: further arguments, such as --config.steps=2.
    """
    command = ("launch.train", f"--config={config}", f"--workdir={workdir}", *more)
    return Step(name, command, tuple(inputs), (workdir,), share, json=f"{workdir}/result.json")


def load(source: str) -> Recipe:
    """The recipe of FILE.py or FILE.py:ARGUMENT, which goes to its get_recipe as one string.

    Raises:
      ConfigError: there is none, or it can't be used.
    """
    path, *argument = source.split(":", 1)
    if not Path(path).is_file() or not path.endswith(".py"):
        raise ConfigError(f"{path}: expected a recipe, a Python file with get_recipe()")
    spec = importlib.util.spec_from_file_location("recipe", path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        recipe = module.get_recipe(*argument)
    except Exception as error:  # of somebody's file: anything
        said = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{source} can't be used: {said}") from error
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            f"{source}: get_recipe() gives a {type(recipe).__name__}, expected a launch.recipe_chain.Recipe"
        )
    return recipe


def folders(steps: Sequence[Step]) -> list[str]:
    """Those that must be there for what programs write; what a step makes itself isn't among them."""
    outputs = [output for step in steps for output in step.outputs]
    parents = {os.path.dirname(os.path.normpath(path)) for path in [*outputs, *(step.json for step in steps)]}
    return sorted(path for path in parents if path and not any(holds(output, path) for output in outputs))


def plain(steps: Sequence[Step]) -> str:
    """The commands, one a line, for a shell."""
    made = folders(steps)
    lines = [shlex.join(["mkdir", "-p", *made])] if made else []
    return "\n".join([*lines, *(shlex.join(["python", "-m", *step.arguments]) for step in steps)])


def slurm(recipe: Recipe, steps: Sequence[Step], source: str, nodes: int = 1) -> str:
    """A shell script that submits the steps; each job waits for those that make its inputs.

    Args:
      nodes: of the steps that train, which launch/slurm/train.sbatch starts.
    """
    lines = [
        "#!/bin/bash",
        f"# {source} on Slurm: jobs that wait for those that make their inputs. Start it in the repository's folder.",
        "# SBATCH_ACCOUNT, SBATCH_PARTITION, SBATCH_GPUS and the like hold for every job. Where one fails, those that",
        "# need it are cancelled; submitted again, finished programs end at once and the others go on.",
        "set -euo pipefail",
    ]
    if made := folders(steps):
        lines.append(shlex.join(["mkdir", "-p", *made]))
    chosen = {step.name for step in steps}
    for step in steps:
        waits = "".join(f':"$job_{one.name}"' for one in recipe.before(step) if one.name in chosen)
        words = ["sbatch", "--parsable", f"--job-name={step.name}"]
        words += [f"--dependency=afterok{waits}", "--kill-on-invalid-dep=yes"] if waits else []
        lines.append(f"job_{step.name}=$({' '.join([*words, *_job(step, nodes)])})")
    return "\n".join(lines)


def _job(step: Step, nodes: int) -> list[str]:
    if step.command[0] == "launch.train":
        return [f"--nodes={nodes}", "launch/slurm/train.sbatch", *map(shlex.quote, step.arguments[1:])]
    command = '"${PYTHON:-.venv/bin/python}" -m ' + shlex.join(step.arguments)
    return ["--output=%x-%j.log", f"--wrap={shlex.quote(command)}"]


def holds(output: str, path: str) -> bool:
    """Whether `path` is this file or folder, or lies in it."""
    output, path = os.path.normpath(output), os.path.normpath(path)
    return path == output or path.startswith(output + os.sep)


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ConfigError(message)
