"""A training run's newest checkpoint in a few small files, to carry it to another machine and go on there.

folder/config.json       the run's configuration
folder/position.json     the step, the position in the data, the fingerprint of the data, the files
folder/state-01.safetensors, ...

Weights stay in float32; moments of the optimizer and the moving average are kept in bfloat16. A run that goes on from
it is not equal to the bit, but its moments are off by a part in 256 at most, and renewed within some hundred steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relic_jax import files
from relic_jax.config import from_config_dict
from relic_jax.errors import InputError
from relic_jax.models import weights
from relic_jax.train import abstract, run
from relic_jax.train.checkpoint import Checkpoints, recorded

LARGEST = 15_000_000  # bytes of a file
_EXACT = ("params", "critic")  # trees that keep float32


def write(workdir: Path, folder: Path) -> int:
    """Writes the newest checkpoint of a run to a new folder, which has its name only when it is complete.

    Returns:
      Its step.

    Raises:
      InputError: there is no such run or no checkpoint, or the folder exists or can't be written.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; expected a new folder, nothing is overwritten")
    cfg = _configuration(workdir)
    with contextlib.closing(Checkpoints(workdir, cfg, cfg.keep)) as checkpoints:
        step = checkpoints.latest
        if step is None:
            raise InputError(f"{workdir} holds no complete checkpoint yet")
        trees, position = checkpoints.restore(_shapes(cfg))
        fingerprint = checkpoints.stored_data()
    groups = _groups(_flat(trees))
    temporary = files.temporary(folder)
    try:
        temporary.mkdir(parents=True)
        names = [f"state-{i:02d}.safetensors" for i in range(1, len(groups) + 1)]
        for name, group in zip(names, groups, strict=True):
            weights.save_safetensors(temporary / name, group)
        about = {"step": step, "state": position, "fingerprint": fingerprint, "files": names}
        (temporary / "position.json").write_text(json.dumps(about, indent=1))
        (temporary / "config.json").write_text(json.dumps(dataclasses.asdict(cfg), indent=1))
        temporary.rename(folder)
    except OSError as error:
        raise InputError(f"{folder} can't be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return step


def read(folder: Path, workdir: Path) -> int:
    """Makes the workdir of a run that goes on from what `write` wrote: `launch.train --workdir` does so.

    Returns:
      The step it goes on from.

    Raises:
      InputError: a file is missing or damaged, or the workdir holds checkpoints already.
    """
    cfg = _configuration(folder)
    try:
        about = json.loads((folder / "position.json").read_text())
        step, position, fingerprint, names = (about[k] for k in ("step", "state", "fingerprint", "files"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'position.json'} is missing, cut short or damaged: {error}") from error
    shapes = _shapes(cfg)
    flat = _flat(shapes)
    found = {}
    for name in names:
        own = {leaf: flat[leaf] for leaf in weights.names(folder / name) if leaf in flat}
        found |= weights.load_safetensors(folder / name, own)
    missing = [leaf for leaf in flat if leaf not in found]
    if missing:
        raise InputError(f"{folder} lacks {missing[0]} and {len(missing) - 1} more of the run's state")
    trees = {name: _filled(name, tree, found) for name, tree in shapes.items()}
    workdir.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Checkpoints(workdir, cfg, cfg.keep, fingerprint)) as checkpoints:
        if checkpoints.latest is not None:
            raise InputError(f"{workdir} holds checkpoints already, the newest of step {checkpoints.latest}")
        checkpoints.save(step, trees, position)
    return step


def _configuration(folder: Path) -> run.RunConfig:
    values = recorded(str(folder))
    if values is None:
        raise InputError(f"{folder} holds no run: there is no config.json in it")
    return from_config_dict(run.config_class(values.get("stage", "")), values, "config")


def _shapes(cfg: run.RunConfig) -> dict[str, Any]:
    """The state's trees, as shapes on this process's first device."""
    return abstract.place(run.make(cfg, check=False).abstract().state, None).trees()


def _name(tree: str, path: tuple[Any, ...]) -> str:
    return f"{tree}/{jax.tree_util.keystr(path, simple=True, separator='/')}"


def _flat(trees: dict[str, Any]) -> dict[str, Any]:
    """Every leaf by name."""
    return {_name(name, path): leaf for name, tree in trees.items() for path, leaf in jax.tree.leaves_with_path(tree)}


def _filled(name: str, tree: Any, found: dict[str, np.ndarray]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: jnp.asarray(found[_name(name, path)]), tree)


def _groups(flat: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """The leaves as they are stored, in files of at most `LARGEST` bytes (an array alone may be larger)."""
    groups: list[dict[str, np.ndarray]] = [{}]
    for name, leaf in flat.items():
        array = np.asarray(leaf)
        if name.split("/")[0] not in _EXACT and array.dtype == np.float32 and array.ndim:
            array = array.astype(jnp.bfloat16)
        if groups[-1] and sum(a.nbytes for a in groups[-1].values()) + array.nbytes > LARGEST:
            groups.append({})
        groups[-1][name] = array
    return groups
