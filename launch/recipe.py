"""Runs a recipe: a chain of commands that makes a model, each when its inputs are there, none twice.

    python -m launch.recipe recipes/tiny.py [--minutes=M] [--from=STEP] [--report=DIR]
    python -m launch.recipe recipes/tiny.py --list        # the steps and where each stands
    python -m launch.recipe recipes/tiny.py --dry-run     # the commands that are left, for copying
    python -m launch.recipe recipes/wan.py:14b --sbatch [--nodes=8] | bash    # the same as Slurm jobs

What follows a colon goes to the recipe's get_recipe (recipes/tiny.py:toy). Started again, the same command leaves out
what is finished and goes on with what was cut off. A step counts as finished when its program ended well and its
outputs are there; when its command has changed, or an output is gone, it runs again, and so does all that depends on
it. Nothing is ever deleted: a training run whose folder is complete ends at once, so to train anew, remove the folder.

--minutes gives the whole chain so much time, what earlier runs took included. Steps that train get their shares and are
stopped then, with a checkpoint; the others run to the end. With more minutes, or without, those that were cut go on;
what was made of them stays as it is, and the list says so (--from=STEP makes it anew).

Exits with 0 when all is done, with a failing step's own code, with 1 when the minutes did not suffice or an output is
missing, 130 or 143 when Ctrl-C or SIGTERM stopped it (the step is told and waited for), 2 on bad input.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import cli, recipe_chain, recipe_report, recipe_run
from launch.recipe_chain import Recipe
from launch.recipe_ledger import Ledger, Lock, survey
from relic_jax.errors import InputError

_LIST = flags.DEFINE_bool("list", False, "only says which steps there are and where each stands")
_DRY_RUN = flags.DEFINE_bool("dry-run", False, "only prints the commands that would run")
_SBATCH = flags.DEFINE_bool("sbatch", False, "only prints the commands as Slurm jobs that wait for each other")
_NODES = flags.DEFINE_integer("nodes", None, "with --sbatch: nodes of each step that trains", lower_bound=1)
_FROM = flags.DEFINE_string("from", None, "step that runs again, with all that depends on it")
_MINUTES = flags.DEFINE_float("minutes", None, "time for the whole chain, shared by the steps that train")
_CURVES = flags.DEFINE_bool("curves", True, "draw the runs' curves at the end, where matplotlib is installed")
_REPORT = flags.DEFINE_string("report", None, "folder of report.md, report.json, curves.png; ROOT/recipe_report")


def main(source: str, argv: Sequence[str]) -> int:
    del argv
    _check_flags()
    recipe = recipe_chain.load(source)
    again = recipe.after(_FROM.value) if _FROM.value else set()
    if not (_LIST.value or _DRY_RUN.value or _SBATCH.value):
        cli.writable_directory(recipe.root)
        report = cli.writable_directory(_REPORT.value or str(Path(recipe.root) / "recipe_report"))
        with Lock(recipe.root) as lock, recipe_run.Signals() as signals:
            code = recipe_run.Run(source, recipe, _MINUTES.value, report, lock, signals).all(again)
            if _CURVES.value and not signals.first and recipe_report.draw(report, recipe):
                recipe_report.write(report, source, recipe, Ledger(recipe.root).records)
        return code
    ledger = Ledger(recipe.root)
    if _LIST.value:
        ledger.forget(again)
        print(table(recipe, ledger))
        return 0
    steps = recipe_run.plan(recipe, ledger, again, _MINUTES.value)
    print(recipe_chain.plain(steps) if _DRY_RUN.value else recipe_chain.slurm(recipe, steps, source, _NODES.value or 1))
    return 0


def table(recipe: Recipe, ledger: Ledger) -> str:
    """The steps of a recipe, a line each."""
    found = survey(recipe, ledger.records)
    rows = [("step", "state", "outputs", "inputs")]
    rows += [(s.name, str(found[s.name]), " ".join(s.outputs) or "-", " ".join(s.inputs) or "-") for s in recipe.steps]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:3]]
    return "\n".join("  ".join([*(f"{c:{w}}" for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows)


def _check_flags() -> None:
    if _LIST.value + _DRY_RUN.value + _SBATCH.value > 1:
        raise InputError("--list, --dry-run and --sbatch exclude each other")
    if _NODES.value and not _SBATCH.value:
        raise InputError(f"--nodes={_NODES.value} is for --sbatch")
    if _MINUTES.value is not None and not _MINUTES.value > 0:
        raise InputError(f"--minutes={_MINUTES.value:g}: expected a number above 0")
    if _MINUTES.value and _SBATCH.value:
        raise InputError("--minutes can't be shared among Slurm's jobs; SBATCH_TIMELIMIT limits each")


if __name__ == "__main__":
    named = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
    if not named and not {"--help", "--helpfull", "--helpshort"} & set(sys.argv):
        print("error: expected a recipe after the program's name, such as recipes/tiny.py", file=sys.stderr)
        sys.exit(2)
    cli.run(functools.partial(main, sys.argv.pop(1) if named else ""))
