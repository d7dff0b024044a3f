"""Checkpoints of a training run (Orbax), and the weights taken from one or from a safetensors file.

workdir/config.json          the configuration that the run was started with
workdir/checkpoints/<step>/  params, ema, opt_state, and of distillation critic, critic_opt_state (trees of arrays);
                             data (JSON: the iterator's state, and the data set's fingerprint)

Orbax writes a checkpoint under a temporary name and renames it, so what has a number is whole unless something else
damaged it. What can't be read or written is said in one sentence, with the newest step that is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from relic_jax import files
from relic_jax.config import ConfigError, first_difference, from_config_dict
from relic_jax.errors import InputError
from relic_jax.models import weights
from relic_jax.models.module import Params
from relic_jax.parallel.placement import place_like

# What a run may be gone on with another value of: none changes what is trained.
_FREE = ("keep", "log_every", "sample_every", "save_every", "mesh", "data_val")
# Orbax logs each error with the stacks of all its threads; it raises them too, and `Checkpoints` says them.
logging.getLogger("absl").addFilter(lambda record: record.levelno < logging.ERROR or "/orbax/" not in record.pathname)
_REASON = 200  # characters of what another library says
_TREES = ("params", "ema", "opt_state", "critic", "critic_opt_state")


class Checkpoints:
    """The checkpoints of one run in `workdir`: written in the background, the newest `keep` stay.

    Args:
      data: what tells the training data apart (`shards.fingerprint`); empty: nothing is compared.

    Raises:
      ConfigError: the folder holds checkpoints of a run with another configuration, or on other data.
      InputError: its configuration or newest checkpoint can't be read.
    """

    def __init__(self, workdir: Path, config: Any, keep: int, data: str = "") -> None:
        self._manager = _manager(workdir, max_to_keep=keep, enable_async_checkpointing=True)
        self._workdir, self._data = workdir, data
        same_data = self.latest is not None and bool(data) and self.stored_data() == data
        _claim(workdir, config, started=self.latest, same_data=same_data)
        if self.latest is not None and data and not same_data and self.stored_data():
            raise ConfigError(
                f"{workdir} holds a run on other data than is in {config.data} now; put back what was there, or choose "
                "another --workdir and start from its weights with --config.init_from"
            )

    def stored_data(self) -> str:
        """The fingerprint that the newest checkpoint was written with; empty in those of earlier versions."""
        with self._reading():
            file = self._workdir / "checkpoints" / str(self.latest) / "data" / "metadata"
            return json.loads(file.read_text()).get("fingerprint", "")

    @property
    def latest(self) -> int | None:
        """The newest complete checkpoint's step."""
        return self._manager.latest_step()

    def save(self, step: int, trees: dict[str, Any], data: Any) -> None:
        """Copies the arrays off the device, then writes in the background.

        Args:
          step: steps done.
          trees: the state's, by name (`run.State.trees`).
          data: the data iterator's state, of types that JSON holds.
        """
        saved = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        about = ocp.args.JsonSave({"state": data, "fingerprint": self._data})
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(data=about, **saved))

    def restore(self, abstract: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """The newest checkpoint's trees, in the structure of `abstract`, and its data state."""
        targets = {name: ocp.args.StandardRestore(_placed(tree)) for name, tree in abstract.items()}
        with self._reading():
            wanted = ocp.args.Composite(data=ocp.args.JsonRestore(), **targets)
            restored = self._manager.restore(self.latest, args=wanted)
        return {name: restored[name] for name in abstract}, restored["data"]["state"]

    def close(self) -> None:
        """Waits until everything is on disk.

        Raises:
          InputError: it can't be written.
        """
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax's own, from another thread, with all that it went through
            found = _steps(self._workdir)
            kept = f"checkpoint {found[-1]} is whole and kept" if found else "there is no earlier one"
            raise InputError(
                f"{self._workdir}: a checkpoint can't be written ({_reason(error)}); {kept}, the same command goes on "
                "when there is room"
            ) from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise InputError(_damaged(self._workdir, self.latest or 0, error)) from error


def load_params(path: str, expected: Params, which: Literal["ema", "params"] = "ema") -> Params:
    """Weights from a training run's workdir (its newest checkpoint) or from a safetensors file.

    Args:
      path: the workdir, or a file ending in .safetensors.
      expected: nested dict whose leaves have `shape` and `dtype` (`models.module.abstract`).
      which: the moving average or the last weights; a safetensors file holds one set only.

    Raises:
      InputError: there are no weights, or names the first leaf that doesn't fit and both shapes.
    """
    if path.endswith(".safetensors"):
        return place_like(jax.tree.map(jnp.asarray, weights.load_safetensors(path, expected)), expected)
    step = _newest(path)
    weights.check_fits(_shapes(Path(path), step, which), expected, f"{path} (step {step})")
    return _load(Path(path), step, which, expected)


def read(workdir: str, which: Literal["ema", "params"] = "ema") -> tuple[int, Params, dict[str, Any]]:
    """What a workdir holds, without asking it to fit anything: step, weights, configuration.

    Raises:
      InputError: the folder holds no checkpoint.
    """
    step = _newest(workdir)
    params = _load(Path(workdir), step, which, _shapes(Path(workdir), step, which))
    return step, params, _configuration(Path(workdir))


def recorded(path: str) -> dict[str, Any] | None:
    """The configuration of the run that made the weights at `path`, if it was kept with them.

    Args:
      path: a training run's workdir, or a safetensors file (`launch.export weights` writes it into the header).
    """
    if path.endswith(".safetensors"):
        values = weights.read_metadata(path).get("config")
        return json.loads(values) if values else None
    return _configuration(Path(path)) if (Path(path) / "config.json").is_file() else None


def _newest(workdir: str) -> int:
    if not (Path(workdir) / "checkpoints").is_dir():
        raise InputError(f"{workdir} holds no weights; expected a training run's workdir or a .safetensors file")
    steps = _steps(Path(workdir))
    if not steps:
        raise InputError(f"{workdir} holds no complete checkpoint yet")
    return steps[-1]


def _steps(workdir: Path) -> list[int]:
    """The steps of all checkpoints that have their name, ascending."""
    folder = workdir.absolute() / "checkpoints"
    return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def _shapes(workdir: Path, step: int, which: str) -> Any:
    """What a checkpoint's item holds."""
    try:
        return ocp.StandardCheckpointHandler().metadata(_item(workdir, step, which)).tree
    except Exception as error:
        raise InputError(_damaged(workdir, step, error, which)) from error


def _load(workdir: Path, step: int, which: str, expected: Any) -> Params:
    try:
        return ocp.StandardCheckpointHandler().restore(
            _item(workdir, step, which), args=ocp.args.StandardRestore(_placed(expected))
        )
    except Exception as error:
        raise InputError(_damaged(workdir, step, error, which)) from error


def _item(workdir: Path, step: int, which: str) -> epath.Path:
    return epath.Path(workdir.absolute() / "checkpoints" / str(step) / which)


def _damaged(workdir: Path, step: int, error: Exception, which: str = "params") -> str:
    """What to tell a person whose checkpoint can't be read: which one, why, and from which they can go on."""
    whole = next(
        (other for other in reversed(_steps(workdir)) if other < step and _is_whole(workdir, other, which)), None
    )
    folder = workdir / "checkpoints" / str(step)
    way = f"checkpoint {whole} is whole: move {folder} away to go on from it" if whole else "no earlier one is whole"
    return f"{folder} is damaged, or was written by another version of relic-jax ({_reason(error)}); {way}"


def _is_whole(workdir: Path, step: int, which: str) -> bool:
    """Whether a checkpoint can be read: all of one item, and the position in the data."""
    try:
        handler = ocp.StandardCheckpointHandler()
        shapes = handler.metadata(_item(workdir, step, which)).tree
        handler.restore(_item(workdir, step, which), args=ocp.args.StandardRestore(_placed(shapes)))
        json.loads((workdir / "checkpoints" / str(step) / "data" / "metadata").read_text())
    except Exception:
        return False
    return True


def _reason(error: BaseException) -> str:
    """The first line of what went wrong first: Orbax wraps errors in errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= _REASON else f"{line[:_REASON]} ..."


def _configuration(workdir: Path) -> dict[str, Any]:
    """config.json of a run.

    Raises:
      InputError: it can't be read.
    """
    path = workdir / "config.json"
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError("no object")
        return values
    except (OSError, ValueError) as error:
        steps = _steps(workdir)
        way = (
            f"; checkpoint {steps[-1]} is there: move config.json away and give the run's own --config" if steps else ""
        )
        raise InputError(f"{path} is cut short or damaged ({_reason(error)}){way}") from error


def _manager(workdir: Path, **options: Any) -> ocp.CheckpointManager:
    handlers = {name: ocp.StandardCheckpointHandler() for name in _TREES} | {"data": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(
        (workdir / "checkpoints").absolute(),
        options=ocp.CheckpointManagerOptions(**options),
        item_handlers=handlers,
    )


def _placed(tree: Any) -> Any:
    """Says where each leaf goes, its mesh or the first device: a checkpoint may come from a machine with others."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(leaf, "sharding", None)
        on_mesh = isinstance(sharding, jax.sharding.NamedSharding)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding if on_mesh else first)

    return jax.tree.map(place, tree)


def _claim(workdir: Path, config: Any, *, started: int | None, same_data: bool) -> None:
    """Writes config.json, or checks that it says the same when there is a run to go on with."""
    path = workdir / "config.json"
    if started is not None and path.exists():
        values = _configuration(workdir)
        try:
            stored = from_config_dict(type(config), values)  # fields added since have their default
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{path} was written by another version of relic-jax, or changed: {error}") from error
        free = {*_FREE, *(("data",) if same_data else ())} & {field.name for field in dataclasses.fields(config)}
        stored = dataclasses.replace(stored, **{name: getattr(config, name) for name in free})
        difference = first_difference(stored, config)
        if difference is not None:
            field, old, new = difference
            raise ConfigError(
                f"{workdir} holds a run with {field}={old!r}, this one has {field}={new!r}; "
                "choose another --workdir, or start from its weights with --config.init_from"
            )
    if jax.process_index():
        return
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(config), indent=1))
