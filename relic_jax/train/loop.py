"""The training loop: read it top to bottom.

Every random number of a run follows from (seed, step), and a checkpoint holds the data iterator's state,
so a run that was killed and resumed equals, bit for bit, one that was not (on one device kind).

On several processes (`parallel.cluster`) all of them run this same loop. Each reads its rows of the same batches, the
first writes what people look at, and a signal to one stops all after the same step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jaxtyping import PRNGKeyArray

from relic_jax import files
from relic_jax.data import shards
from relic_jax.parallel import cluster, watch
from relic_jax.parallel import mesh as meshes
from relic_jax.parallel.placement import part_of_batch, place_batch, place_like
from relic_jax.parallel.rules import constrain
from relic_jax.rng import from_seed, streams
from relic_jax.signals import Interruption
from relic_jax.train import abstract, checkpoint, metrics
from relic_jax.train.host import Prefetch, Silent
from relic_jax.train.run import Scalars, Stage, State

_ALWAYS = ("loss", "gradient_norm")


def train(stage: Stage, workdir: Path) -> dict[str, int | float]:
    """Trains `stage` in `workdir`, from its newest checkpoint if it has one.

    SIGTERM or SIGINT, on any process, saves a checkpoint and returns after the step in progress.

    Args:
      stage: what is trained; refused if the workdir holds checkpoints of another run.
      workdir: an existing folder: config.json, checkpoints/, metrics.jsonl, tensorboard/, samples/.

    Returns:
      `steps` done, `loss` (mean of the last `log_every` steps; the first process knows it), `steps_per_s` of this
      process (samples and checkpoints included, compilation not), `compile_s`, `wall_s`, `peak_rss_bytes`, and
      `signal` (0 when the run is complete, otherwise what stopped it).

    Raises:
      ConfigError: the workdir holds a run with another configuration, or on other data.
      InputError: `cfg.init_from` doesn't fit the stage, or the mesh the devices; another run has the workdir; a
        checkpoint can't be read or written.
      FloatingPointError: the loss or its gradient is not finite; the batch is in the workdir.
    """
    begun, cfg = time.perf_counter(), stage.cfg
    several, first = jax.process_count() > 1, jax.process_index() == 0
    mesh = meshes.make(meshes.MeshShape.parse(cfg.mesh)) if cfg.mesh or several else None
    part = part_of_batch(mesh, cfg.batch)
    keys = streams(from_seed(cfg.seed))
    batches = stage.batches(cfg.seed, part)

    fingerprint = shards.fingerprint(cfg.data)

    with contextlib.ExitStack() as stack:
        if mesh is not None:
            stack.enter_context(jax.set_mesh(mesh))
        stack.enter_context(cluster.together(lambda: hold(workdir) if first else contextlib.nullcontext()))
        shapes = stage.abstract()
        frozen = stage.load(abstract.place(shapes.frozen, mesh))
        step_once = make_step(stage, keys["steps"])
        checkpoints = stack.enter_context(
            contextlib.closing(checkpoint.Checkpoints(workdir, cfg, cfg.keep, fingerprint))
        )
        if checkpoints.latest is None:
            state = begin(stage, frozen, keys["weights"], mesh)
        else:
            state, position = restore(stage, checkpoints, mesh)
            batches.set_state(position)
        done = int(state.step)
        writer = stack.enter_context(contextlib.closing(metrics.Writer(workdir, done) if first else Silent()))
        feed = stack.enter_context(Prefetch(batches))
        interruption = stack.enter_context(Interruption())
        limit = stack.enter_context(watch.Watchdog()).step if several else contextlib.nullcontext
        stack.enter_context(watch.losing_ends())
        progress = {"initial": done, "total": cfg.steps, "desc": cfg.stage, "unit": "step", "mininterval": 1}
        bar = stack.enter_context(tqdm.tqdm(**progress, disable=not first))
        log = Log(workdir, writer, bar, stage.check)
        clock = Clock()

        for step in range(done + 1, cfg.steps + 1):
            with limit():
                batch = cluster.together(lambda: next(feed))
                # Returns before the device is done; on several processes, asking all whether to stop waits for it.
                state, scalars = step_once(state, frozen, place_batch(mesh, batch, part))
                stop = cluster.any_process(bool(interruption.signal))
            log.note(step, batch, scalars)
            clock.tick()
            bar.update()
            complete = step == cfg.steps
            sampling = complete or step % cfg.sample_every == 0
            saving = complete or stop or step % cfg.save_every == 0
            if sampling or saving or step % cfg.log_every == 0:
                log.write()
            if sampling:
                values = stage.evaluate(state.ema, frozen, keys["samples"])
                writer.line(step, values)
                writer.scalars(step, values)
                writer.images(step, stage.sample(state.ema, frozen, keys["samples"]))
            if complete:
                params, ema = (place_like(stage.finish(tree), tree) for tree in (state.params, state.ema))
                state = dataclasses.replace(state, params=params, ema=ema)
            if saving:
                writer.flush()
                checkpoints.save(step, state.trees(), feed.get_state())
            if stop:
                break

    done = int(state.step)
    losses = [row["loss"] for row in metrics.read(workdir) if "loss" in row] if first else [float("nan")]
    return {
        "steps": done,
        "loss": float(np.mean(losses[-cfg.log_every :])),
        "steps_per_s": clock.steps_per_s,
        "compile_s": clock.compile_s,
        "wall_s": time.perf_counter() - begun,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "signal": 0 if done == cfg.steps else interruption.signal or signal.SIGTERM,  # or another process's
    }


def hold(workdir: Path) -> contextlib.ExitStack:
    """The workdir, for this run alone until it ends: two runs in one would clear away each other's checkpoints.

    Raises:
      InputError: another run has it.
    """
    held = contextlib.ExitStack()
    held.enter_context(files.held(workdir))
    return held


def make_step(stage: Stage, key: PRNGKeyArray) -> Callable[[State, Any, dict[str, Any]], tuple[State, Scalars]]:
    """The stage's step, jitted; the state it is given is donated. Random numbers follow from `key` and the step."""
    shapes = stage.abstract().state

    def step(state: State, frozen: Any, batch: dict[str, Any]) -> tuple[State, Scalars]:
        batch = jax.tree.map(lambda x: constrain(x, "batch"), batch)
        state, scalars = stage.step(state, frozen, batch, streams(key, state.step))
        return abstract.constrain(state, shapes), scalars

    return jax.jit(step, donate_argnums=0, compiler_options=stage.compiler_options or None)


class Log:
    """Keeps the scalars of recent steps on the device until they are written, and their batches."""

    def __init__(
        self, workdir: Path, writer: metrics.Writer | Silent, bar: tqdm.tqdm, check: Callable[[dict[str, float]], None]
    ) -> None:
        self._workdir, self._writer, self._bar, self._check = workdir, writer, bar, check
        self._pending: list[tuple[int, dict[str, np.ndarray], Scalars]] = []

    def note(self, step: int, batch: dict[str, np.ndarray], scalars: Scalars) -> None:
        self._pending.append((step, batch, scalars))

    def write(self) -> None:
        """Waits for the device, then writes a line a step and the mean of all to TensorBoard.

        Raises:
          FloatingPointError: a loss or gradient is not finite.
          Exception: what the stage's check raises.
        """
        fetched = jax.device_get([scalars for _, _, scalars in self._pending])
        rows = [{name: float(value) for name, value in row.items()} for row in fetched]
        said = [measured(row) for row in rows]
        for (step, batch, _), row in zip(self._pending, said, strict=True):
            self._writer.line(step, row)
            if not np.isfinite([row[name] for name in _ALWAYS]).all():
                self._writer.flush()
                part = f"_process{jax.process_index()}" if jax.process_count() > 1 else ""
                path = self._workdir / f"not_finite_{step:07d}{part}.npz"
                np.savez(path, allow_pickle=False, **batch)
                raise FloatingPointError(
                    f"at step {step} the loss is {row['loss']} and its gradient's norm {row['gradient_norm']}; "
                    f"the batch is in {path}, the last checkpoint is kept"
                )
        names = dict.fromkeys(name for row in said for name in row)
        mean = {name: float(np.mean([row[name] for row in said if name in row])) for name in names}
        self._writer.scalars(self._pending[-1][0], mean)
        self._check(mean)
        self._bar.set_postfix(loss=f"{mean['loss']:.4g}", refresh=False)
        self._pending.clear()


def measured(row: dict[str, float]) -> dict[str, float]:
    """What a step has to say: loss and gradient always, of the rest what is no NaN."""
    return {name: value for name, value in row.items() if name in _ALWAYS or not np.isnan(value)}


class Clock:
    """Tells compilation, which the first step waits for, from the steps after it."""

    def __init__(self) -> None:
        self.compile_s, self._begun, self._count = 0.0, time.perf_counter(), 0

    def tick(self) -> None:
        if not self._count:
            now = time.perf_counter()
            self.compile_s, self._begun = now - self._begun, now
        self._count += 1

    @property
    def steps_per_s(self) -> float:
        return (self._count - 1) / (time.perf_counter() - self._begun) if self._count > 1 else 0.0


def begin(stage: Stage, frozen: Any, key: PRNGKeyArray, mesh: jax.sharding.Mesh | None) -> State:
    """The state before the first step; on a mesh no device ever holds all of it."""
    places = abstract.place(stage.abstract().state, mesh)
    if stage.cfg.init_from:
        params = checkpoint.load_params(stage.cfg.init_from, places.params)
    elif mesh is None:
        params = stage.weights(key)
    else:
        params = jax.jit(stage.weights, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, places.params))(key)
    if mesh is None:
        return stage.init(params, frozen)
    return jax.jit(stage.init, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, places))(params, frozen)


def restore(stage: Stage, checkpoints: checkpoint.Checkpoints, mesh: jax.sharding.Mesh | None) -> tuple[State, Any]:
    """The newest checkpoint's state, where the step leaves it (the program is compiled for that), and the data's."""
    places = abstract.place(stage.abstract().state, mesh)
    trees, position = checkpoints.restore(places.trees())
    step = jnp.asarray(checkpoints.latest, jnp.int32)
    if mesh is not None:
        step = jax.device_put(step, places.step.sharding)
    return dataclasses.replace(places, **trees, step=step), position
