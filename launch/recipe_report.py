"""What came of a recipe: report.md and report.json of every step, and the curves of those that trained."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.recipe_chain import Recipe, Step
from launch.recipe_ledger import Record, survey

_CURVES = "curves.png"


def write(folder: Path, source: str, recipe: Recipe, records: Mapping[str, Record]) -> None:
    """Writes both files anew."""
    folder.mkdir(parents=True, exist_ok=True)
    found = survey(recipe, records)
    steps = [_row(step, str(found[step.name]), records.get(step.name)) for step in recipe.steps]
    wall_s, cpu_s = (sum(row[name] for row in steps) for name in ("wall_s", "cpu_s"))
    values = {"recipe": source, "wall_s": wall_s, "cpu_hours": cpu_s / 3600, "steps": steps}
    _replace(folder / "report.json", json.dumps(values, indent=1) + "\n")
    _replace(folder / "report.md", _markdown(values, (folder / _CURVES).exists()))


def draw(folder: Path, recipe: Recipe) -> bool:
    """The curves of all runs, where matplotlib is installed; whether there is a picture. If not, nothing stops."""
    runs = [step.workdir for step in recipe.steps if step.workdir and _losses(step.workdir)]
    if not runs or importlib.util.find_spec("matplotlib") is None:
        return False
    command = ["launch.export", "curves", f"--runs={','.join(runs)}", f"--out={folder / _CURVES}"]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(f"note: no curves: {(done.stderr.strip() or str(done.returncode)).splitlines()[-1]}", file=sys.stderr)
    return not done.returncode


def _row(step: Step, state: str, record: Record | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": step.name, "state": state, "wall_s": 0.0, "cpu_s": 0.0}
    if record is not None:
        row |= {"ended": record.ended, "wall_s": record.wall_s, "cpu_s": record.cpu_s}
    losses = _losses(step.workdir) if step.workdir else {}
    if losses or step.share:
        run = _json(Path(step.workdir) / "config.json")
        row |= {"steps": max(losses, default=0), "of": step.steps or run.get("steps", 0)}
        if losses:
            last = list(losses.values())[-run.get("log_every", 20) :]  # as launch.train says it
            row["loss"] = sum(last) / len(last)
    if step.json and record is not None and record.state == "done":
        row["figures"] = _json(Path(step.json))
    return row


def _losses(workdir: str) -> dict[int, float]:
    """The loss of each step of a run; a line that a killed run left half written doesn't count."""
    try:
        lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines(keepends=True)
    except OSError:
        return {}
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _markdown(values: dict[str, Any], curves: bool) -> str:
    steps = values["steps"]
    lines = [
        f"# {values['recipe']}",
        "",
        f"{duration(values['wall_s'])} of wall time, {values['cpu_hours']:.2f} CPU hours.",
        "",
        "| step | state | wall time | CPU hours | training steps | loss |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_line(row) for row in steps),
    ]
    if curves:
        lines += ["", f"![loss and held-out measurements of the runs]({_CURVES})"]
    for row in steps:
        if row.get("figures"):
            lines += ["", f"## {row['name']}", "", *(_figures(row["figures"]))]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    trained = f"{row['steps']} of {row['of'] or '?'}" if "steps" in row else ""
    loss = f"{row['loss']:.4g}" if "loss" in row else ""
    wall, cpu = (duration(row["wall_s"]), f"{row['cpu_s'] / 3600:.2f}") if row["wall_s"] else ("", "")
    return "| " + " | ".join([row["name"], row["state"], wall, cpu, trained, loss]) + " |"


def _figures(values: Mapping[str, Any]) -> Sequence[str]:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return ["| figure | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in shown.items())]


def duration(seconds: float) -> str:
    """As in 3 h 20 min, 4.5 min or 12 s."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} min"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
