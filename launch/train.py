"""Trains one stage, from its newest checkpoint if the workdir has one.

    python -m launch.train --config=configs/tiny_vae.py --workdir=runs/tiny_vae [--config.steps=100] [--json=FILE]

Exits with 0 when the run is complete, 128 + the signal's number when SIGTERM or Ctrl-C stopped it (the same
command resumes it), 1 when the loss is not finite or a distilled student has collapsed, 2 on bad input.

On several hosts the same command runs once on each, all with the same workdir and data: launch/slurm/train.sbatch and
launch/kubernetes/train.yaml start it, or COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID say who is who
(relic_jax/parallel/cluster.py). --config.mesh divides all their devices, and may change when a run goes on. A process
that has lost another exits with 75: all started again go on from the newest checkpoint.

A config of stage `ode_data` trains nothing: it writes the teacher's trajectories to the workdir, a data set for
stage `ode`, and goes on with the shards that are missing. On several hosts each makes its share of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from launch import cli
from relic_jax.config import ConfigError
from relic_jax.data import trajectories
from relic_jax.parallel import cluster, watch
from relic_jax.parallel.part import WHOLE, Part
from relic_jax.train import collapse, loop, run

cli.config_flag("configs/tiny_vae.py:short")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of checkpoints, metrics and samples", required=True)
_JSON = flags.DEFINE_string("json", None, "file for the result: steps, loss, ..., or clips, clips_made, ...")


def main(argv: Sequence[str]) -> int:
    del argv
    at = cluster.place()
    if flags.FLAGS.config.get("stage") == "ode_data":
        return write(*checked(trajectories.TrajectoryConfig), Part(at.index, at.count) if at else WHOLE)
    if at is not None:
        cluster.join(at)
    cfg, workdir = cluster.together(lambda: checked(kind()))
    cluster.check_same("configuration", repr(cfg))
    cluster.check_shared(workdir)
    return train(cfg, workdir)


def kind() -> type[run.RunConfig]:
    """The configuration that --config is for.

    Raises:
      ConfigError: it is no training run's.
    """
    stage = flags.FLAGS.config.get("stage")
    if stage is None:
        path = flags.FLAGS["config"].config_filename
        raise ConfigError(f"{path} doesn't describe a training run: it names no stage")
    return run.config_class(stage)


def checked[T](kind: type[T]) -> tuple[T, Path]:
    """The configuration and the workdir that the flags name."""
    cfg = cli.load_config(kind)
    workdir = cli.writable_directory(_WORKDIR.value)
    cli.check_outputs({"json": _JSON.value}, {"init_from": getattr(cfg, "init_from", "")})
    return cfg, workdir


def train(cfg: run.RunConfig, workdir: Path) -> int:
    """The loop's run, in words and as an exit code."""
    try:
        result = loop.train(cluster.together(lambda: run.make(cfg)), workdir)
    except (FloatingPointError, collapse.Collapse) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    status = 128 + int(result["signal"]) if result["signal"] else 0
    if jax.process_index():
        return status
    if status:
        print(f"stopped and saved at step {result['steps']} of {cfg.steps}; the same command resumes", file=sys.stderr)
        return status
    print(f"{cfg.stage}: {result['steps']} steps, loss {result['loss']:.4g}; weights in {workdir}")
    if _JSON.value:
        cli.write_json(_JSON.value, result)
    return 0


def write(cfg: trajectories.TrajectoryConfig, workdir: Path, part: Part) -> int:
    """The same for a data set. Several processes divide its shards, and need not be joined for that."""
    begun = time.perf_counter()
    clips, made = trajectories.write(cfg, workdir, part)
    wall_s = time.perf_counter() - begun
    print(f"ode_data: {clips} trajectories in {workdir}; {made} made in {wall_s:.1f} s")
    if _JSON.value:
        size = sum(path.stat().st_size for path in workdir.glob("*array_record*"))
        values = {"clips": clips, "clips_made": made, "wall_s": wall_s, "clips_per_min": 60 * made / wall_s}
        cli.write_json(_JSON.value, {**values, "size_bytes": size})
    return 0


if __name__ == "__main__":
    with watch.failing_ends():
        cli.run(main)
