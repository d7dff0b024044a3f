"""Checkpoints of a training run (Orbax), and the weights taken from one or from a safetensors file.

workdir/config.json          the configuration that the run was started with
workdir/checkpoints/<step>/  params, ema, opt_state, and of distillation critic, critic_opt_state (trees of arrays);
                             data (the iterator's state, JSON)
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from relic_jax.config import ConfigError, first_difference, from_config_dict
from relic_jax.errors import InputError
from relic_jax.models import weights
from relic_jax.models.module import Params
from relic_jax.parallel.placement import place_like

_TREES = ("params", "ema", "opt_state", "critic", "critic_opt_state")


class Checkpoints:
    """The checkpoints of one run in `workdir`: written in the background, the newest `keep` stay.

    Raises:
      ConfigError: the folder holds checkpoints of a run with another configuration.
    """

    def __init__(self, workdir: Path, config: Any, keep: int) -> None:
        self._manager = _manager(workdir, max_to_keep=keep, enable_async_checkpointing=True)
        _claim(workdir, config, started=self.latest is not None)

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
        self._manager.save(step, args=ocp.args.Composite(data=ocp.args.JsonSave({"state": data}), **saved))

    def restore(self, abstract: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """The newest checkpoint's trees, in the structure of `abstract`, and its data state."""
        targets = {name: ocp.args.StandardRestore(_placed(tree)) for name, tree in abstract.items()}
        restored = self._manager.restore(self.latest, args=ocp.args.Composite(data=ocp.args.JsonRestore(), **targets))
        return {name: restored[name] for name in abstract}, restored["data"]["state"]

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.close()


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
    step, folder = _newest(path)
    stored = ocp.StandardCheckpointHandler().metadata(epath.Path(folder / which)).tree
    weights.check_fits(stored, expected, f"{path} (step {step})")
    return _load(folder / which, expected)


def read(workdir: str, which: Literal["ema", "params"] = "ema") -> tuple[int, Params, dict[str, Any]]:
    """What a workdir holds, without asking it to fit anything: step, weights, configuration.

    Raises:
      InputError: the folder holds no checkpoint.
    """
    step, folder = _newest(workdir)
    params = _load(folder / which, ocp.StandardCheckpointHandler().metadata(epath.Path(folder / which)).tree)
    return step, params, json.loads((Path(workdir) / "config.json").read_text())


def recorded(path: str) -> dict[str, Any] | None:
    """The configuration of the run that made the weights at `path`, if it was kept with them.

    Args:
      path: a training run's workdir, or a safetensors file (`launch.export weights` writes it into the header).
    """
    if path.endswith(".safetensors"):
        values = weights.read_metadata(path).get("config")
        return json.loads(values) if values else None
    file = Path(path) / "config.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _newest(workdir: str) -> tuple[int, Path]:
    folder = Path(workdir).absolute() / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{workdir} holds no weights; expected a training run's workdir or a .safetensors file")
    steps = ocp.utils.checkpoint_steps(folder)
    if not steps:
        raise InputError(f"{workdir} holds no complete checkpoint yet")
    return max(steps), folder / str(max(steps))


def _load(folder: Path, expected: Any) -> Params:
    return ocp.StandardCheckpointHandler().restore(epath.Path(folder), args=ocp.args.StandardRestore(_placed(expected)))


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


def _claim(workdir: Path, config: Any, *, started: bool) -> None:
    """Writes config.json, or checks that it says the same when there is a run to go on with."""
    path = workdir / "config.json"
    if started:
        stored = from_config_dict(type(config), json.loads(path.read_text()))  # fields added since have their default
        if hasattr(config, "mesh"):  # says where a run goes on, not what is trained
            stored = dataclasses.replace(stored, mesh=config.mesh)
        difference = first_difference(stored, config)
        if difference is not None:
            field, old, new = difference
            raise ConfigError(
                f"{workdir} holds a run with {field}={old!r}, this one has {field}={new!r}; "
                "choose another --workdir, or start from its weights with --config.init_from"
            )
        return
    if jax.process_index():
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(config), indent=1))
    temporary.replace(path)
